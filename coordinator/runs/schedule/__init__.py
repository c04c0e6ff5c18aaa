"""Which runs are taken care of now, and which nodes each of them has."""
