"""What the harness says: progress, a reason to skip, a failure."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line of progress."""


class Unavailable(Exception):
    """A reason to skip: the machine lacks what the message names, and the message says how to get it."""


class ClusterError(Exception):
    """A failure: the message carries the last words of what failed, and the next step."""
