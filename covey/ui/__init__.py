"""`covey ui`: a page in the browser that shows a federation as it goes, for whoever started it on this machine.

A server on loopback asks the client library, as the command line does, and gives small pages of JSON to a page of plain
modules (`static`). Beside secrets it keeps in memory what is costly to read again: the points of
curves, steps of gossip runs and verdicts of rounds, of the runs that were looked at last.
"""
