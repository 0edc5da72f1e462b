"""Python imports this at startup if its folder is on PYTHONPATH. It has no effect until Letta's REST server is
imported, so Letta's migrations and tools run unchanged."""

from letta_patches import install

install()
