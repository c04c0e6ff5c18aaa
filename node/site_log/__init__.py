"""A node's log: all of it in bounded files here, and what its operator shares: gathered, scrubbed, bounded, sent."""
