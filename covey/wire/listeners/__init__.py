"""What stands behind an open port, whatever is served there: limits on callers and calls, health, metrics."""
