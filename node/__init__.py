"""The node: keeps a session with its coordinator, trains beside its data, delivers signed updates."""

if __name__ != "covey.node":
    raise ImportError(f"this folder is the package covey.node: import it by that name, not as {__name__!r}")
