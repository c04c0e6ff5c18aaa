"""The commands: a file a group, and one more (`run_checks`) or a room (`gossip`) where a group has many."""
