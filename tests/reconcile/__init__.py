"""Comparison of all copies of messages and charges: on devices, in our tables, at the services. Independent of
pytest."""
