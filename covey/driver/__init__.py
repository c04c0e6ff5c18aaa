"""What moves a pure machine, on a coordinator or on a node: a queue of events, ticks, and work beside them."""
