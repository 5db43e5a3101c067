"""Draws a dashboard as one picture: its panels in their grid, each with title, lines, axis in its unit, and a legend."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, PngImagePlugin

from generate.dashboards import PER_ROW

from .answers import TITLES, Graph, Page, Series
from .units import write_value

COLOURS = (
    "#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1",
    "#ba43a9", "#705da0", "#508642", "#cca300", "#447ebc", "#c15c17",
)  # fmt: skip
INK, QUIET, LINES, CARD, GROUND = "#24292e", "#6e7680", "#e4e7eb", "#ffffff", "#f0f2f5"
CARD_WIDTH, CARD_HEIGHT, HEADING, GAP = 4.6, 2.75, 0.42, 0.12
"""Inches."""
LEGEND_LINES = 8
DOTS_PER_INCH = 100
PALETTE = 128
"""Colours of the file: graphs have few, and files with few are small."""


def draw(page: Page, path: Path) -> None:
    """Write the picture of a dashboard."""
    rows = math.ceil(len(page.graphs) / PER_ROW)
    columns = min(PER_ROW, len(page.graphs))
    width, height = columns * (CARD_WIDTH + GAP) + GAP, rows * (CARD_HEIGHT + GAP) + GAP + HEADING
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=GROUND)
    span = _span(page)
    figure.text(
        GAP / width, 1 - HEADING / 2 / height, page.title, fontsize=13, color=INK, fontweight="bold", va="center"
    )
    for number, graph in enumerate(page.graphs):
        row, column = divmod(number, PER_ROW)
        left = GAP + column * (CARD_WIDTH + GAP)
        bottom = height - HEADING - (row + 1) * (CARD_HEIGHT + GAP) + GAP
        axes = _card(figure, graph, (left / width, bottom / height, CARD_WIDTH / width, CARD_HEIGHT / height))
        axes.set_xlim(*span)
    _save(figure, page, path)


def _card(figure: Figure, graph: Graph, place: tuple[float, float, float, float]) -> Axes:
    left, bottom, width, height = place
    card = figure.add_axes(place, facecolor=CARD, xticks=[], yticks=[])
    for side in card.spines.values():
        side.set(color=LINES, linewidth=0.8)
    card.text(0.022, 0.955, graph.title, fontsize=9.5, color=INK, fontweight="bold", va="top", transform=card.transAxes)
    lines = _lines(graph)
    rows = min(len(lines), LEGEND_LINES) + 1 >> 1
    below = 0.15 + 0.067 * rows
    axes = figure.add_axes((left + width * 0.155, bottom + height * below, width * 0.815, height * (0.84 - below)))
    _plot(axes, lines, graph.unit)
    if lines:
        _legend(axes, len(lines))
    else:
        axes.text(0.5, 0.5, "No data", fontsize=9, color=QUIET, ha="center", va="center", transform=axes.transAxes)
        axes.set_yticklabels([])
    return axes


def _span(page: Page) -> tuple[datetime, datetime]:
    """The time of the page, which all its panels show."""
    times = [at for graph in page.graphs for line in graph.series for at, _ in line.points]
    return datetime.fromtimestamp(min(times), UTC), datetime.fromtimestamp(max(times), UTC)


def _lines(graph: Graph) -> list[Series]:
    """Those with the most first: the legend has no room for all."""
    return sorted(graph.series, key=lambda it: -max((v for _, v in it.points if math.isfinite(v)), default=0.0))


def _plot(axes: Axes, lines: Sequence[Series], unit: str) -> None:
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        times, values = _with_gaps(line.points)
        axes.plot(times, values, color=colour, linewidth=1.15, label=_shortened(line.legend))
        if len(lines) <= 3:
            axes.fill_between(times, values, color=colour, alpha=0.09, linewidth=0)
    axes.set_ylim(bottom=0, top=None if _highest(lines) > 0 else 1)
    axes.margins(x=0)
    axes.set_facecolor(CARD)
    axes.grid(color=LINES, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor=QUIET)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=unit == "short" and _highest(lines) >= 2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write_value(unit, value)))
    axes.xaxis.set_major_locator(MinuteLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))


def _legend(axes: Axes, lines: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    if lines > LEGEND_LINES:
        names = [*names[: LEGEND_LINES - 1], f"and {lines - LEGEND_LINES + 1} more"]
        handles = handles[:LEGEND_LINES]
    axes.legend(
        handles, names, loc="upper left", bbox_to_anchor=(-0.13, -0.13), ncols=2, fontsize=7, frameon=False,
        labelcolor=INK, handlelength=1.1, columnspacing=1.2, labelspacing=0.3, borderpad=0,
    )  # fmt: skip


def _shortened(legend: str, most: int = 40) -> str:
    return legend if len(legend) <= most else f"{legend[: most - 1]}…"


def _highest(lines: Sequence[Series]) -> float:
    return max((value for line in lines for _, value in line.points if math.isfinite(value)), default=0.0)


def _with_gaps(points: Sequence[tuple[float, float]]) -> tuple[list[datetime], list[float]]:
    """Times and values; where Prometheus has said nothing for two steps, the line is broken."""
    steps = [after - before for (before, _), (after, _) in pairwise(points)]
    step = min(steps, default=0.0)
    times: list[datetime] = []
    values: list[float] = []
    for number, (at, value) in enumerate(points):
        if number and steps[number - 1] > 2 * step:
            times.append(datetime.fromtimestamp(at - step, UTC))
            values.append(math.nan)
        times.append(datetime.fromtimestamp(at, UTC))
        values.append(value if math.isfinite(value) else math.nan)
    return times, values


def _save(figure: Figure, page: Page, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor=GROUND)
    few = Image.open(drawn).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
    said = PngImagePlugin.PngInfo()
    said.add_text(TITLES, "\n".join(graph.title for graph in page.graphs))
    path.parent.mkdir(parents=True, exist_ok=True)
    few.save(path, optimize=True, pnginfo=said)
