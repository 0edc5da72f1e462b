"""Users who send random messages, and a check that their charges equal the cost of their calls: `python -m
tests.billing`."""
