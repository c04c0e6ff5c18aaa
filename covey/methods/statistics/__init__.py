"""Statistics of the nodes' data, without a model.

What a node says of its data, what of it is hidden, what becomes of it on the coordinator, and a node's own report.
"""
