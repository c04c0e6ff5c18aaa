"""A relay for nodes that can only call: it passes on what others want to say to them, and reads none of it.

Whoever calls a node through it does TLS with that node itself, end to end. The relay reads two things: the name in the
first, unencrypted message of a caller (SNI, `NAME.node.covey`), and the proof of a node that it is who it says.
"""
