"""How the local stack says that it cannot go on."""


class StackError(Exception):
    """Why the stack cannot go on, as one sentence for the person at the terminal (shown without a traceback)."""
