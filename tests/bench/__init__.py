"""Benchmarks: figures to read side by side from one run, never assertions. `python -m tests.bench` lists them."""
