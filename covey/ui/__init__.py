"""`covey ui`: a page in the browser that shows a federation as it goes, for whoever started it on this machine.

A server on loopback asks the client library, as the command line does, and gives small pages of JSON to a page of plain
modules (`static`). It has no state but the points of the curves that were looked at.
"""
