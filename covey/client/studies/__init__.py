"""Studies: groups of runs with nodes and people of their own."""
