"""Fixtures of the local stack's tests, for its commands."""

from tests.unit.stack.conftest import layout

__all__ = ["layout"]
