"""The coordinator: opens rounds, takes updates in, commits versions, and answers the command line."""

if __name__ != "covey.coordinator":
    raise ImportError(f"this folder is the package covey.coordinator: import it by that name, not as {__name__!r}")
