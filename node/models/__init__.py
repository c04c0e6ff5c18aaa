"""Models from other nodes, chunk by chunk.

Who is asked for what (`sources`, pure), a file put together from the answers of several nodes (`assembly`), the newest
model of a run's peers (`newest`), and the other side: what a node gives to whom, and how often (`lending`). It knows
neither gRPC nor protobuf: `covey.node.peers` brings questions and chunks.
"""
