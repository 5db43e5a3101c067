"""The pods of a batch among each other: what this one tells of its endpoints goes to the board, what it reads there to its endpoints.

What it leaves for those that come after it is on a note (`parked`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from headrace_worker.engines.openai.board import Board
from headrace_worker.engines.openai.endpoints import Fleet
from headrace_worker.engines.openai.parked import Parked
from headrace_worker.engines.openai.sharing import TURN_SECONDS, Sight


class Pods:
    """One pod and the others of its batch; it is alone where the batch has no board."""

    def __init__(
        self,
        board: Board | None,
        fleet: Fleet,
        parked: Parked | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall`: the clock that pods have in common, near enough."""
        self._board, self._fleet, self._parked, self._wall = board, fleet, parked, wall
        self._told: Mapping[str, Sight] = {}

    def begin(self, now: float) -> None:
        """Begin with what others have found out, earlier and just now."""
        if self._parked is not None:
            self._fleet.beware(self._parked.read(), now)
        if self._board is not None:
            self._heed(self._board, self._board.begin(), now)

    def share(self, now: float, *, waits: bool) -> None:
        """Tell and look, every few seconds. `waits`: whether records wait for an endpoint."""
        if self._board is None:
            return

        def tell() -> Mapping[str, Sight]:
            self._told = self._fleet.sights(now, waits=waits)
            return self._told

        told = self._told
        if (peers := self._board.look(tell, now)) is not None:
            self._heed(self._board, {**peers, self._board.name: told}, now)

    def close(self) -> None:
        """Take leave of the others."""
        if self._parked is not None:
            self._parked.write(self._fleet.shut)
        if self._board is not None:
            self._board.close()

    def _heed(self, board: Board, sights: Mapping[str, Mapping[str, Sight]], now: float) -> None:
        self._fleet.heed(board.name, sights, int(self._wall() // TURN_SECONDS), now)
