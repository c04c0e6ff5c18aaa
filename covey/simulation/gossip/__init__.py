"""Gossip in one process: the nodes' own machines, training in a pool of workers, a network in virtual time."""
