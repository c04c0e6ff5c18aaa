"""The record of runs, rounds, updates and nodes (SQL), and the files beside it, named by what is in them."""

if __name__ != "covey.storage":
    raise ImportError(f"this folder is the package covey.storage: import it by that name, not as {__name__!r}")
