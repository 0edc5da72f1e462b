"""The wire format, without I/O."""
