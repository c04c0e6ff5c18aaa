"""A step of a run: opened, planned by its method, and made by its rule or by its policy."""
