"""Where the curves of a run go besides Covey's own record: trackers, one file each (docs/trackers.md)."""
