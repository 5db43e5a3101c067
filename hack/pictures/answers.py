"""What Prometheus answers to the panels of a dashboard. Asked once and kept as JSON, so that pictures can be drawn again without a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generate.dashboards import PICTURED, Dashboard, Panel

RANGE = "20s"
"""What `$__rate_interval` is here: scrapes are a second apart, and a run takes minutes, not days."""
VARIABLES = {"$namespace": ".*", "$bulkhead": ".*", "$__rate_interval": RANGE}

TITLES = "Panels"
"""The field of a picture that names its panels, one a line: a picture of an older dashboard can be told."""

Ask = Callable[[str], list[dict[str, Any]]]
"""Asks one query over the time of the run; the series of the answer, as the API of Prometheus gives them."""


@dataclass(frozen=True)
class Series:
    """One line of a graph."""

    legend: str
    points: tuple[tuple[float, float], ...]
    """Seconds since 1970, and the value there; not a number where there is none."""


@dataclass(frozen=True)
class Graph:
    """One panel with what it shows."""

    title: str
    unit: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Page:
    """One dashboard with what it shows."""

    name: str
    title: str
    graphs: tuple[Graph, ...]


def ask_all(ask: Ask) -> tuple[Page, ...]:
    """Every panel of every dashboard."""
    return tuple(_page(dashboard, ask) for dashboard in PICTURED)


def query_of(expression: str) -> str:
    """The query as Grafana sends it, with all namespaces and Bulkheads chosen."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def legend_of(template: str, labels: Mapping[str, str]) -> str:
    """What a line is called: `{{kind}} {{state}}` with the words of its labels."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), template).strip()


def save(pages: tuple[Page, ...], path: Path) -> None:
    """Write them down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(page) for page in pages]))


def load(path: Path) -> tuple[Page, ...]:
    """Read what `save` has written."""
    return tuple(
        Page(
            page["name"],
            page["title"],
            tuple(
                Graph(
                    graph["title"],
                    graph["unit"],
                    tuple(
                        Series(one["legend"], tuple((at, value) for at, value in one["points"]))
                        for one in graph["series"]
                    ),
                )
                for graph in page["graphs"]
            ),
        )
        for page in json.loads(path.read_text())
    )


def _page(dashboard: Dashboard, ask: Ask) -> Page:
    return Page(dashboard.name, dashboard.title, tuple(_graph(panel, ask) for panel in dashboard.panels))


def _graph(panel: Panel, ask: Ask) -> Graph:
    series = [
        Series(
            legend_of(query.legend, found["metric"]),
            tuple((float(at), float(value)) for at, value in found["values"]),
        )
        for query in panel.queries
        for found in ask(query_of(query.expression))
    ]
    return Graph(panel.title, panel.unit, tuple(series))
