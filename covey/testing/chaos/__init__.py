"""Seeded chaos: a real federation, in which processes, machines, links and data fail while runs go on.

`python -m covey.testing.chaos` (`make chaos`) is the program; `chase` in `covey.testing.chaos.chase` does it in Python.
"""
