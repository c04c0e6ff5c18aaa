"""The wire between the nodes of a gossip run: mutual TLS, links that either side may open, batches, signs of life.

Who there is: `roster`, `lives` (incarnations), `evicted`. Links: `service` and `calls` (their two ends), `dialer`,
`links`, `hub` (all of them), `forwarder` (callers through a relay). What goes over them: `translation`, `deliveries`,
`receptions`, `speeds`. Who is suspected: `vitals`, `detector`. `network` puts all of it together for the daemon, with
`ports`.
"""
