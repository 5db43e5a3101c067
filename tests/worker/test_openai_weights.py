"""Weights of endpoints that are changed while a batch runs."""

from __future__ import annotations

from pathlib import Path

from headrace.api.engines import WeightsRef
from headrace.api.worker import Env
from headrace_worker.engines.openai.weights import LOOK_SECONDS, Weights

REF = WeightsRef(name="shares")


def weights(folder: Path) -> Weights:
    return Weights(REF, ["east", "west"], {Env.CONFIG_MAPS.value: str(folder)})


def say(folder: Path, **shares: str) -> None:
    (folder / "shares").mkdir(exist_ok=True)
    for name, text in shares.items():
        (folder / "shares" / name).write_text(text)


def test_changed_says_new_weights_once_and_looks_every_few_seconds(tmp_path: Path) -> None:
    say(tmp_path, east="9\n", nobody="3")
    found = weights(tmp_path)
    assert found.changed(0.0) == {"east": 9}
    say(tmp_path, east="0", west="4")
    assert found.changed(LOOK_SECONDS - 1) is None
    assert found.changed(LOOK_SECONDS) == {"east": 0, "west": 4}
    assert found.changed(2 * LOOK_SECONDS) is None


def test_changed_leaves_out_what_is_no_weight(tmp_path: Path) -> None:
    say(tmp_path, east="lots", west="1000001")
    assert weights(tmp_path).changed(0.0) == {}
    say(tmp_path, east="-1", west="1000000")
    assert weights(tmp_path).changed(LOOK_SECONDS) == {"west": 1_000_000}


def test_changed_is_nothing_where_there_is_no_such_config_map(tmp_path: Path) -> None:
    assert weights(tmp_path).changed(0.0) is None
    assert Weights(None, ["east"], {Env.CONFIG_MAPS.value: str(tmp_path)}).changed(0.0) is None
    assert Weights(REF, ["east"], {}).changed(0.0) is None


def test_changed_takes_back_what_is_not_said_any_more(tmp_path: Path) -> None:
    say(tmp_path, east="9")
    found = weights(tmp_path)
    assert found.changed(0.0) == {"east": 9}
    (tmp_path / "shares" / "east").unlink()
    assert found.changed(LOOK_SECONDS) == {}
