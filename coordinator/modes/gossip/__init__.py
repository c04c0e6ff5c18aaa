"""Mode `gossip`: the coordinator hands out who takes part, hears how far nodes are, says who is out; no model."""
