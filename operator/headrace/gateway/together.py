"""Doing many small things at a time, and leaving nothing behind that was begun."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

AT_ONCE = 32
"""How many are under way together."""

Result = TypeVar("Result")


async def together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Do all of it, a few at a time, and wait for all that was begun; then the first failure is raised, if there was one."""
    todo, results = [*work], []
    for first in range(0, len(todo), AT_ONCE):
        found = await asyncio.gather(*todo[first : first + AT_ONCE], return_exceptions=True)
        failures = [one for one in found if isinstance(one, BaseException)]
        if failures:
            for one in todo[first + AT_ONCE :]:
                one.close()
            raise failures[0]
        results += [one for one in found if not isinstance(one, BaseException)]
    return results
