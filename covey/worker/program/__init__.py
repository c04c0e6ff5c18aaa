"""The worker's side: its loop, the pipe to its daemon, and the runs that it holds warm."""
