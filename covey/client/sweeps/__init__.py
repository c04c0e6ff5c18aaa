"""Sweeps over values of a specification: what is tried (pure), its record, and the runs that try it."""
