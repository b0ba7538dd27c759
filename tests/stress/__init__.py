"""What can go wrong with a machine, done on purpose: see `python -m tests.stress --help`."""
