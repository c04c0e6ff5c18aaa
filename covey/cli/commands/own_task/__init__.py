"""A task of one's own: something to start from, and its whole way before anybody runs it."""
