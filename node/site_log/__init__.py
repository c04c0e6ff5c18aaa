"""What a node shares of its log, with its operator's consent: gathered, scrubbed, bounded, sent beside the work."""
