"""A node's part in a gossip run: carries out what its push-sum machine asks for, and keeps the record of it."""
