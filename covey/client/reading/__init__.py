"""A federation's record, read through its coordinator or from its data directory: the same pages, made into values."""
