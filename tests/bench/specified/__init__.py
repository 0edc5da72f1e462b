"""What the benchmarks compare this server with: a relay of the stack that the specification names."""
