"""Who may see and do what, and which run is meant."""
