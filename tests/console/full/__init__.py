"""What `python -m tests.console` plays beside the tests of the gate."""
