"""Whatever stands in a record file, each bad line is named, or the records can be worked on; there is no third way."""

from __future__ import annotations

from pathlib import Path

import pytest

import record_mutations
from record_mutations import SEEDS, fuzz, judge


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_accepted(name: str, tmp_path: Path) -> None:
    assert judge(SEEDS[name].content, SEEDS[name].fields, tmp_path / "batch") == "accepted"


def test_hundreds_of_mutated_files_of_all_formats_are_accepted_or_refused_with_a_line(tmp_path: Path) -> None:
    counts = fuzz(450, 7, tmp_path / "batch")
    assert {what for what, count in counts.items() if count} >= {f"{name} accepted" for name in SEEDS}
    assert {what.split()[0] for what in counts if what.endswith("refused")} >= SEEDS.keys() - {"text", "pages"}


def test_a_crash_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(record_mutations, "plan", crash)
    with pytest.raises(AssertionError, match="file 0 of seed 1, format chunks: RecursionError"):
        fuzz(1, 1, tmp_path / "batch")
