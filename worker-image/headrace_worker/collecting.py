"""How often Python looks for garbage while a shard is worked on.

A worker makes many objects and next to no cycles: they go as soon as nobody needs them. To look at them after every 700 that were
made costs a tenth of its time and finds nothing. It is still done now and then, for the few cycles that libraries leave.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 50_000
"""So many objects more than before, and the young ones are looked at."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Inside the block garbage is looked for rarely, and never among what was there before it."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
