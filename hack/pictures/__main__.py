"""`make pictures`: live through a run, ask Prometheus what the dashboards ask, and draw what it answers."""

from __future__ import annotations

import argparse
from pathlib import Path

from .answers import load, save
from .draw import draw

ANSWERS = Path("build/pictures/answers.json")


def main() -> None:
    """Write a picture for each dashboard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long the run lasts")
    parser.add_argument("--answers", type=Path, help=f"draw these again, without a run; the last ones are in {ANSWERS}")
    parser.add_argument("--output-dir", type=Path, default=Path("docs/images"))
    chosen = parser.parse_args()
    if chosen.answers is None:
        from .run import answers_of_a_run  # noqa: PLC0415 - a control plane and torch, which are not needed to draw

        save(answers_of_a_run(chosen.minutes * 60), ANSWERS)
    for page in load(chosen.answers or ANSWERS):
        path = chosen.output_dir / f"{page.name}.png"
        draw(page, path)
        empty = [graph.title for graph in page.graphs if not graph.series]
        print(f"{path}: {path.stat().st_size // 1024} kB" + (f", nothing to show: {', '.join(empty)}" if empty else ""))


if __name__ == "__main__":
    main()
