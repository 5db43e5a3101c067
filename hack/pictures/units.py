"""Values in the units of the panels, as an axis says them."""

from __future__ import annotations


def write_value(unit: str, value: float) -> str:
    """A value as an axis says it: `80 %`, `250 ms`, `1.5 K`, `12 req/s`."""
    if unit == "percentunit":
        return f"{value * 100:.4g} %"
    if unit == "s":
        return _seconds(value)
    return _short(value) + {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    for limit, factor, word in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (90, 1, "s"), (5400, 1 / 60, "min")):
        if value and abs(value) < limit:
            return f"{value * factor:.3g} {word}"
    return f"{value / 3600:.3g} h" if value else "0 s"
