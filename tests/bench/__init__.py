"""Benchmarks: figures for comparison within one run, without assertions. `python -m tests.bench` lists them."""
