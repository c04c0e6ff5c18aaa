"""Methods that change local training only, and keep something of it on each node."""
