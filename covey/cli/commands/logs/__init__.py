"""What happened to a run, and what its nodes share of their logs."""
