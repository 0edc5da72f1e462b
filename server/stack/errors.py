"""The error of the local stack."""


class StackError(Exception):
    """The reason why the stack cannot continue, in one sentence. Shown on the terminal without a traceback."""
