"""Comparing every copy of what users did: the devices', ours, and those of the services. Knows nothing of pytest."""
