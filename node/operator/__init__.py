"""What a node's operator decides and sees: settings, checks, health, metrics, drills."""
