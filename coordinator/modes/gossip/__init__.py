"""Mode `gossip`: the coordinator hands out who takes part, hears how far nodes are, and says who is out. It sees no model."""
