"""What the status page shows: tables of texts, made of what a tenant has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from headrace.api.asking import ClosedWindow, RequestRecord, RequestRoute, RequestState
from headrace.api.inferencebatch import InferenceBatch
from headrace.core.openai.batches import created_at, state_of
from headrace.core.openai.ids import batch_id

MOST_ROWS = 50
"""Of a table; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table. The first cell of a row names it."""

    title: str
    about: str
    columns: tuple[str, ...]
    nothing: str
    """What is said where there are no rows."""
    rows: Sequence[tuple[str, ...]] = ()
    more: int = 0
    """Rows that are left out."""


class Finished(NamedTuple):
    """A request that has ended."""

    id: str
    state: RequestState
    accepted: int
    ended: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of one tenant."""

    routes: Sequence[RequestRoute] = ()
    depths: Mapping[str, int] = field(default_factory=dict)
    """Requests that wait, by route."""
    windows: Sequence[ClosedWindow] = ()
    letters: Sequence[RequestRecord] = ()
    """The newest first, no more than are shown."""
    dead: int = 0
    """All dead letters."""
    batches: Sequence[InferenceBatch] = ()
    finished: Sequence[Finished] = ()
    """The last first."""


def tables(seen: Seen, now: int) -> list[Table]:
    """All of them, in the order of the page."""
    return [_routes(seen, now), _requests(seen, now), _finished(seen), _letters(seen), _batches(seen)]


def moment(milliseconds: int) -> str:
    """A moment as people read it, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _routes(seen: Seen, now: int) -> Table:
    rows = []
    for route in seen.routes:
        mine = [window for window in seen.windows if window.route == route.name]
        places = len(mine) * route.window.max_batch_size
        fill = f"{100 * sum(len(window.members) for window in mine) // places} %" if places else "-"
        first = min((member.accepted for window in mine for member in window.members), default=None)
        waited = f"{max(0, now - first) // 1000} s" if first is not None else "-"
        depth = seen.depths.get(route.name)
        rows.append((route.name, route.model, "?" if depth is None else str(depth), str(len(mine)), fill, waited))
    return Table(
        "Routes",
        "Where single requests gather: how many wait, and the windows that are at work.",
        ("route", "model", "in the queue", "windows at work", "filled", "oldest at work"),
        "There are no routes: only whole batches are taken here.",
        rows,
    )


def _requests(seen: Seen, now: int) -> Table:
    found = sorted(
        ((member, window) for window in seen.windows for member in window.members),
        key=lambda one: one[0].accepted,
        reverse=True,
    )
    rows = [
        (
            member.id,
            window.route,
            batch_id(window.batch),
            moment(member.accepted),
            f"{max(0, now - member.accepted) // 1000} s",
        )
        for member, window in found[:MOST_ROWS]
    ]
    return Table(
        "Requests at work",
        "Single requests that a batch is to answer, the latest first.",
        ("request", "route", "batch", "accepted", "for"),
        "Nothing is at work.",
        rows,
        len(found) - len(rows),
    )


def _finished(seen: Seen) -> Table:
    rows = [
        (
            one.id,
            one.state.value,
            moment(one.accepted),
            moment(one.ended),
            f"{max(0, one.ended - one.accepted) / 1000:.1f} s",
        )
        for one in seen.finished[:MOST_ROWS]
    ]
    return Table(
        "Requests that have ended",
        "Single requests, the last first, as far as this gateway has heard of them since it was started.",
        ("request", "state", "accepted", "ended", "took"),
        "None has ended since the gateway was started.",
        rows,
    )


def _letters(seen: Seen) -> Table:
    rows = [
        (
            one.id,
            one.state.value,
            moment(one.ended or one.accepted),
            one.error.message[:200] if one.error is not None else "-",
        )
        for one in seen.letters[:MOST_ROWS]
    ]
    return Table(
        "Dead letters",
        "Requests that have failed or expired, the latest first. headrace dlq replay asks them again.",
        ("request", "state", "ended", "why"),
        "There are none.",
        rows,
        max(0, seen.dead - len(rows)),
    )


def _batches(seen: Seen) -> Table:
    rows = []
    for batch in seen.batches[:MOST_ROWS]:
        counts = batch.status.records
        done = f"{counts.succeeded + counts.failed}/{counts.total}"
        made = moment(created_at(batch) * 1000)
        rows.append(
            (
                batch_id(batch.metadata.name),
                state_of(batch).value,
                done,
                str(counts.failed),
                batch.spec.model.name,
                made,
            )
        )
    return Table(
        "Batches",
        "By whichever door they have come, the latest first.",
        ("batch", "state", "records", "failed", "model", "created"),
        "There are none.",
        rows,
        len(seen.batches) - len(rows),
    )
