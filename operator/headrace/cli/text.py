"""Words and numbers for people, and the two streams: answers on standard output, remarks on standard error."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from typing import Any


def say(text: str) -> None:
    """Print an answer."""
    sys.stdout.write(f"{text}\n")


def say_json(data: Any) -> None:
    """Print an answer for programs."""
    say(json.dumps(data, indent=2, ensure_ascii=False))


def remark(text: str) -> None:
    """Print what is not part of the answer."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def number(value: float) -> str:
    """`12,345`, and with one decimal below ten."""
    return f"{value:,.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(span: timedelta) -> str:
    """Two units at most, as kubectl writes ages: `45s`, `3m20s`, `2h5m`, `3d4h`."""
    minutes, seconds = divmod(max(0, round(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return "".join(f"{amount}{unit}" for amount, unit in parts[first : first + 2] if amount) or "0s"


def age(since: datetime | None, now: datetime) -> str:
    """How long ago that was; empty when it is not known."""
    return duration(now - since) if since is not None else ""


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows in columns three blanks apart, the first row being the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def plain(text: str, width: int) -> str:
    """One line of at most so many characters, without anything that could steer a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= width else f"{shown[: max(0, width - 1)]}…"
