"""Seeded chaos among gossip nodes, without a coordinator, beside an undisturbed twin: `--works gossip`."""
