"""How many updates become one: a file a rule, the server optimizers, and the matrix of updates they work on."""

if __name__ != "covey.aggregation":
    raise ImportError(f"this folder is the package covey.aggregation: import it by that name, not as {__name__!r}")
