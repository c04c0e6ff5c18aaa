"""Decentralized learning between peers: who sends to whom, how much of its mass, and the account of that mass.

Pure: no I/O, no tensors, no clock. Topologies and mixing weights are plug-ins; `push_sum` has the state machines.
"""
