"""How a run goes on, for the page and the command line: curves, what its nodes do, how near it is to what ends it."""
