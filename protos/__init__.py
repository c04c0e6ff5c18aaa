"""The contract on the wire: `*.proto`, and the stubs generated from them."""

if __name__ != "covey.protos":
    raise ImportError(f"this folder is the package covey.protos: import it by that name, not as {__name__!r}")
