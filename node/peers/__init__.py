"""The wire between the nodes of a gossip run: mutual TLS, links that either side may open, batches, signs of life."""
