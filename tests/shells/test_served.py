"""The file of served models: what is wrong with it is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.api.base import FieldError
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.shells.local.place import problems
from headrace.shells.local.state import StateDir
from headrace.shells.problems import ManifestError
from headrace.shells.served import load_models

EXAMPLE = Path(__file__).parents[2] / "manifests" / "examples" / "gateway" / "models.yaml"


def anything_goes(_: OurObject) -> list[FieldError]:
    return []


def test_load_models_of_the_example_can_be_run_here(state: StateDir) -> None:
    models = load_models(EXAMPLE, lambda batch: problems(batch, state))
    assert [it.model.name for it in models.models] == ["smollm2-135m-instruct", "all-minilm-l6-v2"]
    assert models.endpoints == ["/v1/chat/completions", "/v1/embeddings"]


FAN_OUT = """
models:
- model: {name: a}
  engine: {name: mock}
routes:
- name: best
  model: any
  target:
    fanOutJob:
      branches:
      - {name: one, model: {name: b, source: {path: weights}}}
      - {name: %s, model: {name: c}}
"""


def test_load_models_of_a_fan_out_whose_branches_have_models_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(FAN_OUT % "two")
    (route,) = load_models(file, anything_goes).routes
    assert route.target.fan_out_job is not None
    source = route.target.fan_out_job.branches[0].model.source
    assert source is not None
    assert source.path == str(tmp_path / "weights")


def test_load_models_of_a_fan_out_that_no_window_could_become_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(FAN_OUT % "one")
    with pytest.raises(ManifestError) as refused:
        load_models(file, anything_goes)
    (problem,) = refused.value.problems
    assert (problem.line, problem.field) == (10, "routes[0].target.fanOutJob.branches")
    assert "names of branches must differ" in problem.message


def test_load_models_with_weights_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models:\n- model: {name: a, source: {path: weights}}\n")
    (served,) = load_models(file, anything_goes).models
    assert served.model.source is not None
    assert served.model.source.path == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        pytest.param("[]", None, "must be one object", id="a list"),
        pytest.param("", None, "must be one object", id="empty"),
        pytest.param("models: []", 1, "1 items or more", id="no models"),
        pytest.param("models:\n- model: {}", 2, "models[0].model.name: required", id="no name"),
        pytest.param("models:\n- model: {name: a}\n  input: {}", 3, "unknown field", id="an input"),
        pytest.param("models:\n- model: {name: a}\n- model: {name: a}", 3, "another model a", id="twice"),
        pytest.param("models:\n- model: {name: a, task: image-classification}", 2, "no endpoint", id="no endpoint"),
        pytest.param("models: 1", 1, "must be an array", id="no array"),
        pytest.param("models:\n- 1", 2, "models[0]", id="no objects"),
    ],
)
def test_load_models_names_the_line(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_models(file, anything_goes)
    assert caught.value.problems[0].line == line
    assert says in str(caught.value)


def test_load_models_names_what_the_place_cannot_run(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models:\n- model: {name: a}\n- model: {name: b}\n  engine: {name: vllm}\n")

    def no_vllm(batch: OurObject) -> list[FieldError]:
        assert isinstance(batch, InferenceBatch)
        return [FieldError("spec.engine.name", "is not there")] if batch.spec.engine.name == "vllm" else []

    with pytest.raises(ManifestError, match=r"models\.yaml:4: models\[1\]\.engine\.name: is not there"):
        load_models(file, no_vllm)


def test_load_models_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        load_models(tmp_path / "none.yaml", anything_goes)
