"""The wire, without any I/O."""
