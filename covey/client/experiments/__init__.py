"""Federations for experiments: as processes on this machine, or in one process; rounds, or gossip."""
