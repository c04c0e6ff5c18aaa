"""Protocols: what a gossip node sends, who weighs what comes, and what becomes of the node's model. A file each."""
