"""The pictures of the dashboards in the documentation are of the dashboards that there are; and what they are drawn from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generate.dashboards import PICTURED, Dashboard
from pictures.answers import TITLES, Graph, Page, Series, ask_all, legend_of, load, query_of, save
from pictures.units import write_value

ROOT = Path(__file__).parents[2]
MOST_BYTES = 200_000


@pytest.mark.parametrize("dashboard", PICTURED, ids=lambda it: it.name)
def test_the_documentation_has_a_picture_of_the_dashboard_as_it_is(dashboard: Dashboard) -> None:
    path = ROOT / "docs/images" / f"{dashboard.name}.png"
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as picture:
        shown = str(picture.info[TITLES]).splitlines()
    assert shown == [panel.title for panel in dashboard.panels], "make pictures"
    assert f"images/{path.name}" in (ROOT / "docs/metrics.md").read_text()


def test_queries_are_asked_with_all_variables_replaced() -> None:
    asked = list[str]()

    def ask(expression: str) -> list[dict[str, Any]]:
        asked.append(expression)
        return []

    pages = ask_all(ask)
    assert [page.name for page in pages] == [dashboard.name for dashboard in PICTURED]
    assert len(asked) == sum(len(panel.queries) for dashboard in PICTURED for panel in dashboard.panels)
    assert [it for it in asked if "$" in it] == []
    assert query_of('rate(a{namespace=~"$namespace"}[$__rate_interval])') == 'rate(a{namespace=~".*"}[20s])'


def test_answers_are_read_as_they_were_saved(tmp_path: Path) -> None:
    pages = (Page("fleet", "Fleet", (Graph("Fill", "percentunit", (Series("a", ((1.0, 0.5), (2.0, 1.0))),)),)),)
    save(pages, tmp_path / "answers.json")
    assert load(tmp_path / "answers.json") == pages


def test_values_that_are_no_numbers_are_kept_as_such() -> None:
    found = [{"metric": {}, "values": [[1, "NaN"], [2, "0.5"]]}]
    graph = ask_all(lambda _: found)[0].graphs[0]
    (_, first), (_, second) = graph.series[0].points
    assert (math.isnan(first), second) == (True, 0.5)


def test_legends_are_written_with_the_words_of_the_labels() -> None:
    assert legend_of("{{kind}} {{ state }}", {"kind": "FanOutJob", "state": "Complete"}) == "FanOutJob Complete"
    assert legend_of("{{bulkhead}}/{{budget}} {{namespace}}", {"bulkhead": "a", "budget": "day"}) == "a/day"
    assert legend_of("p95", {}) == "p95"


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        ("percentunit", 0.825, "82.5 %"),
        ("s", 0, "0 s"),
        ("s", 0.0005, "500 µs"),
        ("s", 0.25, "250 ms"),
        ("s", 12, "12 s"),
        ("s", 600, "10 min"),
        ("s", 7200, "2 h"),
        ("short", 1500, "1.5 K"),
        ("reqps", 12, "12 req/s"),
        ("ops", 2_000_000, "2 M ops/s"),
    ],
)
def test_values_are_written_in_the_unit_of_the_panel(unit: str, value: float, said: str) -> None:
    assert write_value(unit, value) == said
