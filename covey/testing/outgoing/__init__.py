"""What every plug-in on the way out of a node must keep, as tests that its author inherits."""
