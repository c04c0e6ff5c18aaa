"""A room for each mode: its pure machine, its events, and what carries out its actions; `registry` finds it."""
