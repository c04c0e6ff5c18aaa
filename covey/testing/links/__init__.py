"""Ways between machines as organisations have them: what stands in them lets through what it is told to."""
