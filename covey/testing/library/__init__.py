"""What trackers must keep, and how a notebook is executed."""
