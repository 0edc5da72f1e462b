"""Users who talk at random, and whether what they are charged is what their calls cost: `python -m tests.billing`."""
