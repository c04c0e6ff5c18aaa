"""The record of runs, rounds, updates, nodes: its contract, schema, migrations, copies and checks."""
