"""`covey gossip`: the group with a node's own commands, what records of nodes say, and a simulated run."""
