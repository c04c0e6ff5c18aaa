"""The runs that this coordinator takes care of: scheduler, one active run, and what all modes do alike.

Nothing here knows protobuf, gRPC, SQL, or a mode: what a run is given are the ports in `ports`, and its `Mode`.
"""
