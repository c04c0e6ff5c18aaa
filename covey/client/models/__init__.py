"""Models that runs begin with, and which of their versions is meant."""
