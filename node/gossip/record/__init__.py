"""A gossip node's record of one run: an SQLite database in the run's folder. `schema` has the tables."""
