"""Lives of an operator that is killed once: at each call that a life comes to, before the API server hears of it or after it has answered.

Where lives are long, writes alone are told apart. An operator keeps nothing for itself: whoever dies while it reads leaves the same world
as one who dies before its next write. So it is with what nobody reads again: events.

A call is known by its kind and by how many of that kind were before it in its life: that does not depend on how fast anybody is. Lives are
lived some at a time, each in a namespace and with a proxy of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .operator_process import OperatorProcess
from .operator_rig import Plane, Rig
from .proxy import Call, Matches

AT_ONCE = 6
MOST_LIVES = 150
"""Far more than there are calls in a life: an operator that comes to so many would not stop by itself."""


class Death(NamedTuple):
    """The call at which an operator is killed."""

    kind: str
    """As `list pods` or `patch inferencebatches/status`."""
    ordinal: int
    """Which of that kind in its life, from 1."""


def any_but_renewals(call: Call) -> bool:
    """All calls but those that only time brings about: the Lease is looked at and renewed every few seconds."""
    return call.resource != "leases" or call.verb == "create"


def lasting(call: Call) -> bool:
    """Whether it leaves something that an operator reads again."""
    return call.writes and call.resource != "events" and any_but_renewals(call)


def kind_of(call: Call) -> str:
    return f"{call.verb} {'/'.join(filter(None, (call.resource, call.subresource)))}"


def deaths_among(calls: Iterable[Call]) -> Iterator[Death]:
    """A death at each of the calls of one life."""
    so_far: Counter[str] = Counter()
    for kind in map(kind_of, calls):
        so_far[kind] += 1
        yield Death(kind, so_far[kind])


@dataclass(frozen=True)
class Life:
    """One of the lives, for the test that says what is lived through."""

    rig: Rig
    operator: OperatorProcess
    death: Death | None
    """Where the operator is to be killed; None: nowhere."""

    @property
    def killed_at(self) -> Call | None:
        """The call at which it was killed; None while it was not."""
        return next((call for call in self.rig.proxy.calls if call.deadly), None)

    @property
    def so_far(self) -> list[Call]:
        """What was called until it was killed, if it was."""
        killed_at = self.killed_at
        return self.rig.proxy.calls[: killed_at.number if killed_at is not None else None]

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something is true. An operator that has been killed is started again; one that has ended by itself is a failure."""

        def look() -> bool:
            if holds():
                return True
            if not self.operator.alive:
                self._start_again()
            return False

        self.rig.eventually(look, f"{what}; the operator is to be killed at {self.death}")

    def _start_again(self) -> None:
        was_killed = self.operator.starts == 1 and self.killed_at is not None
        assert was_killed, f"it ended by itself, not at {self.death}:\n{self.operator.log}"
        self.operator.start()


def live_and_die(
    plane: Plane, folder: Path, live: Callable[[Life], None], *, answered: bool, among: Matches = lasting
) -> set[str]:
    """Live once without a kill, and once with one at each such call that any life comes to; the kinds of those that were deadly.

    `live` begins with what a user does, goes on with `Life.until`, and ends with what must hold however the operator has died. The operator
    is started before it.
    """
    lived: set[Death | None] = set()
    due: set[Death | None] = {None}
    killed: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while due:
            lived |= due
            assert len(lived) <= MOST_LIVES, f"there are more than {MOST_LIVES} calls: {sorted(filter(None, lived))}"
            ended = list(pool.map(partial(_one, plane, folder, live, answered=answered, among=among), due))
            killed += [kind_of(life.killed_at) for life in ended if life.killed_at is not None]
            due = {death for life in ended for death in deaths_among(filter(among, life.so_far)) if death not in lived}
    print(f"killed at {len(killed)} calls: {dict(Counter(killed))}")
    return set(killed)


def _one(
    plane: Plane, folder: Path, live: Callable[[Life], None], death: Death | None, *, answered: bool, among: Matches
) -> Life:
    """One life, from its beginning to its end."""
    rig = Rig(plane, folder)
    try:
        operator = rig.operator()
        if death is not None:
            rig.proxy.kill_at(
                death.ordinal,
                lambda: operator.pid,
                answered=answered,
                among=lambda call: among(call) and kind_of(call) == death.kind,
            )
        operator.start()
        life = Life(rig, operator, death)
        live(life)
        return life
    except Exception as error:
        error.add_note(f"in the life whose operator is killed at {death}")
        raise
    finally:
        rig.close()
