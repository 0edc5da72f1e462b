"""Python imports this at its start where its folder is on PYTHONPATH. Nothing happens until Letta's REST server is
loaded, so that Letta's migrations and tools notice nothing."""

from letta_patches import install

install()
