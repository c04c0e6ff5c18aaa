"""What is known of the nodes' data: the statistics of a run, and a node's own report."""
