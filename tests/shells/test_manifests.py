"""From files to objects, and every fault with its file, line, object and field."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.api.base import FieldError
from headrace.api.inferencebatch import InferenceBatch
from headrace.shells.localising import on_this_machine
from headrace.shells.manifests import Manifests, check_namespace, load
from headrace.shells.problems import ManifestError

BATCH = """\
apiVersion: headrace.dev/v1alpha1
kind: InferenceBatch
metadata:
  name: reviews
spec:
  model: {name: mock}
  engine: {name: mock}
  input:
    uri: in.jsonl
"""
KNOWN = (
    "InferenceBatch (headrace.dev/v1alpha1), FanOutJob (headrace.dev/v1alpha1), "
    "ScheduledGeneration (headrace.dev/v1alpha1), ConfigMap (v1), List (v1)"
)
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: records}\ndata: {a.jsonl: '{}'}\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load_text(text: str, file: str = "f.yaml", **options: Any) -> Manifests:
    """The objects in a file of that text, in the working directory."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)
    return load([file], **{"adapt": on_this_machine, **options})


def faults(text: str, **options: Any) -> list[str]:
    """What is said to be wrong with a file of that text."""
    with pytest.raises(ManifestError) as raised:
        load_text(text, **options)
    return [str(problem) for problem in raised.value.problems]


def test_load_a_batch() -> None:
    (loaded,) = load_text(BATCH).batches
    assert isinstance(loaded.batch, InferenceBatch)
    assert (loaded.batch.key, loaded.batch.spec.model.name) == ("default/reviews", "mock")


def test_load_json() -> None:
    spec = {"model": {"name": "mock"}, "engine": {"name": "mock"}, "input": {"inline": [{"custom_id": "a"}]}}
    batch = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": "x"}, "spec": spec}
    (loaded,) = load_text(json.dumps(batch), "f.json").batches
    assert loaded.batch.spec.input.inline == ({"custom_id": "a"},)


def test_load_several_documents_lists_and_files() -> None:
    Path("one.yaml").write_text(f"{CONFIG_MAP}---\n{BATCH}")
    items = "".join(
        f"- {line}\n" if i == 0 else f"  {line}\n"
        for i, line in enumerate(BATCH.replace("reviews", "two").splitlines())
    )
    Path("two.yaml").write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    found = load(["one.yaml", "two.yaml"], adapt=on_this_machine)
    assert [it.batch.metadata.name for it in found.batches] == ["reviews", "two"]
    assert [it.metadata.name for it in found.config_maps] == ["records"]


def test_load_a_folder() -> None:
    Path("all").mkdir()
    Path("all/b.yaml").write_text(BATCH)
    Path("all/a.yml").write_text(CONFIG_MAP)
    Path("all/notes.txt").write_text("not: [a manifest")
    found = load(["all"], adapt=on_this_machine)
    assert (len(found.batches), len(found.config_maps)) == (1, 1)


def test_load_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BATCH.encode())))
    (loaded,) = load(["-"], adapt=on_this_machine).batches
    assert loaded.batch.spec.input.uri == f"file://{Path.cwd()}/in.jsonl"


def test_load_drops_what_only_a_server_may_write() -> None:
    text = BATCH.replace("name: reviews", "name: reviews\n  uid: mine\n  generation: 7\n  creationTimestamp: null")
    (loaded,) = load_text(f"{text}status: {{records: {{total: 5}}}}\n").batches
    meta = loaded.batch.metadata
    assert (meta.uid, meta.generation, meta.creation_timestamp) == ("", 1, None)
    assert loaded.batch.status.records.total == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(BATCH.replace("uri: in.jsonl", "url: in.jsonl"),
            ["f.yaml:9: InferenceBatch reviews: spec.input.url: unknown field"], id="an unknown field"),
        pytest.param(f"{BATCH}  shards: '3'\n",
            ['f.yaml:10: InferenceBatch reviews: spec.shards: must be an integer, not "3"'], id="a number in quotes"),
        pytest.param(f"{BATCH}  shards: 0\n",
            ["f.yaml:10: InferenceBatch reviews: spec.shards: must be greater than or equal to 1, not 0"], id="out of range"),
        pytest.param(f"{BATCH}  suspend: 'on'\n",
            ['f.yaml:10: InferenceBatch reviews: spec.suspend: must be a boolean, not "on"'], id="a boolean in quotes"),
        pytest.param(BATCH.replace("  model: {name: mock}\n", ""),
            ["f.yaml:5: InferenceBatch reviews: spec.model: required"], id="a missing field, on the line of its parent"),
        pytest.param(BATCH.replace("metadata:\n  name: reviews\n", ""),
            ["f.yaml:1: InferenceBatch: metadata: required"], id="no metadata"),
        pytest.param(BATCH.replace("name: mock}", "name: mock, mock: {seed: 1, sed: 2}}", 2),
            ["f.yaml:6: InferenceBatch reviews: spec.model.mock: unknown field",
             "f.yaml:7: InferenceBatch reviews: spec.engine.mock.sed: unknown field"], id="two faults at once"),
        pytest.param("a: 1", [f"f.yaml:1: object: kind: required; known are {KNOWN}"],
            id="no kind"),
        pytest.param("kind: Job\napiVersion: batch/v1\nmetadata: {name: x}",
            [f'f.yaml:1: Job x: kind: "Job" is not known here; known are {KNOWN}'],
            id="an unknown kind"),
        pytest.param(BATCH.replace("v1alpha1", "v1"),
            ['f.yaml:1: InferenceBatch reviews: apiVersion: "headrace.dev/v1" is not known for this kind; known are '
             f'{KNOWN}'], id="an unknown version"),
        pytest.param("- 1", ["f.yaml:1: must be an object with apiVersion, kind, metadata and spec"], id="a list"),
        pytest.param("kind: List\nitems:\n- 5", ["f.yaml:3: must be an object with apiVersion, kind, metadata and spec"],
            id="a List of numbers"),
        pytest.param(f"{BATCH}---\n{BATCH}",
            ["f.yaml:14: InferenceBatch reviews: metadata.name: there are two of that name in these files"], id="a name used twice"),
        pytest.param(BATCH.replace("uri: in.jsonl", "uri: file://in.jsonl"),
            ['f.yaml:9: InferenceBatch reviews: spec.input.uri: must be file:// and an absolute path, or a path relative to this file '
             'without file:, not "file://in.jsonl"'], id="a relative file URI"),
        pytest.param(BATCH.replace("name: reviews", "name: reviews\n  namespace: Team A"),
            ["f.yaml:5: InferenceBatch reviews: metadata.namespace: must be at most 63 lower-case letters, digits and dashes, and begin "
             'and end with a letter or digit, not "Team A"'], id="a namespace that is none"),
        pytest.param(BATCH.replace("reviews", "a.b"),
            ["f.yaml:4: InferenceBatch a.b: metadata.name: metadata.name "
             "must have at most 52 characters and no dot: pods are named after it"],
            id="a dot in the name"),
        pytest.param(CONFIG_MAP.replace("a.jsonl", "../up"),
            ["f.yaml:4: ConfigMap records: data[\"../up\"][\"[key]\"]: "
             "must match pattern '^\\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,252}$', not \"../up\""],
            id="a ConfigMap key that leads out of its folder"),
        pytest.param(CONFIG_MAP.replace("'{}'", "3"),
            ["f.yaml:4: ConfigMap records: data[\"a.jsonl\"]: must be a string, not 3"], id="a ConfigMap value that is no text"),
    ],
)  # fmt: skip
def test_load_names_what_is_wrong(text: str, expected: list[str]) -> None:
    assert faults(text) == expected


def test_load_names_the_line_in_an_item_of_a_list() -> None:
    text = f"kind: List\nitems:\n- {BATCH.replace('in.jsonl', '5').replace(chr(10), chr(10) + '  ')}"
    assert faults(text) == ["f.yaml:11: InferenceBatch reviews: spec.input.uri: must be a string, not 5"]


def test_load_names_all_that_is_wrong_in_all_files() -> None:
    Path("a.yaml").write_text(f"{BATCH}  shards: 0\n")
    Path("b.yaml").write_text("kind: Pod\n")
    with pytest.raises(ManifestError) as raised:
        load(["a.yaml", "b.yaml"], adapt=on_this_machine)
    assert [problem.file for problem in raised.value.problems] == ["a.yaml", "b.yaml"]


def test_load_a_file_that_is_not_there() -> None:
    with pytest.raises(ManifestError, match=r"^nowhere\.yaml: cannot be read: No such file or directory$"):
        load(["nowhere.yaml"])


@pytest.mark.parametrize(
    ("written", "asked", "namespace"),
    [
        pytest.param(None, None, "default", id="the default"),
        pytest.param(None, "a", "a", id="what is asked for"),
        pytest.param("a", None, "a", id="what is written"),
        pytest.param("a", "a", "a", id="both the same"),
    ],
)
def test_load_settles_the_namespace(written: str | None, asked: str | None, namespace: str) -> None:
    text = BATCH.replace("name: reviews", f"name: reviews\n  namespace: {written}") if written else BATCH
    (loaded,) = load_text(text, namespace=asked).batches
    assert loaded.batch.metadata.namespace == namespace


def test_load_refuses_another_namespace_than_is_asked_for() -> None:
    text = BATCH.replace("name: reviews", "name: reviews\n  namespace: a")
    assert faults(text, namespace="b") == [
        "f.yaml:5: InferenceBatch reviews: metadata.namespace: is a, but --namespace says b"
    ]


def test_check_namespace_refuses_a_path() -> None:
    with pytest.raises(ManifestError, match=r'^"\.\./\.\." is not a namespace: must be at most 63'):
        check_namespace("../..")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        pytest.param("x.jsonl", "file:///here/x.jsonl", id="a file"),
        pytest.param("../x.jsonl", "file:///x.jsonl", id="a file further up"),
        pytest.param("in/", "file:///here/in/", id="a folder keeps its slash"),
        pytest.param("in/*.jsonl", "file:///here/in/*.jsonl", id="a glob"),
        pytest.param("a b%.jsonl", "file:///here/a%20b%25.jsonl", id="characters that are special in a URI"),
        pytest.param("/abs/x.jsonl", "file:///abs/x.jsonl", id="an absolute path"),
        pytest.param("file:///abs/x.jsonl", "file:///abs/x.jsonl", id="a file URI"),
        pytest.param("s3://in/x.jsonl", "s3://in/x.jsonl", id="a URI of another scheme"),
    ],
)
def test_on_this_machine_makes_paths_absolute(given: str, made: str) -> None:
    data = {"spec": {"input": {"uri": given}, "output": {"uri": given}}}
    assert on_this_machine(data, Path("/here")) == []
    assert data == {"spec": {"input": {"uri": made}, "output": {"uri": made}}}


def test_on_this_machine_finds_the_model() -> None:
    data = {"spec": {"model": {"source": {"path": "models/small"}}}}
    on_this_machine(data, Path("/here"))
    assert data == {"spec": {"model": {"source": {"path": "/here/models/small"}}}}


def test_on_this_machine_finds_the_models_of_a_join() -> None:
    data = {
        "spec": {"aggregation": {"bestOf": {"scorers": [{"judge": {"model": {"source": {"path": "models/judge"}}}}]}}}
    }
    on_this_machine(data, Path("/here"))
    (scorer,) = data["spec"]["aggregation"]["bestOf"]["scorers"]
    assert scorer["judge"]["model"]["source"] == {"path": "/here/models/judge"}


def test_on_this_machine_finds_what_runs_and_branches_are_compared_with() -> None:
    def evaluation(reference: str, path: str) -> dict[str, Any]:
        return {"reference": reference, "embedding": {"model": {"source": {"path": path}}}}

    branches = [{"evaluation": evaluation("out/a", "models/a")}]
    data = {"spec": {"evaluation": evaluation("out/b", "models/b"), "branches": branches}}
    assert on_this_machine(data, Path("/here")) == []
    assert data["spec"]["evaluation"] == evaluation("file:///here/out/b", "/here/models/b")
    assert branches == [{"evaluation": evaluation("file:///here/out/a", "/here/models/a")}]


def test_on_this_machine_names_the_branch_whose_reference_is_no_place() -> None:
    data = {"spec": {"branches": [{}, {"evaluation": {"reference": "file:x"}}]}}
    (error,) = on_this_machine(data, Path("/here"))
    assert error.field == "spec.branches[1].evaluation.reference"


@pytest.mark.parametrize("uri", ["file://x", "file:x", "file:/x", "file://host/x"])
def test_on_this_machine_refuses_a_file_uri_that_is_not_absolute(uri: str) -> None:
    (error,) = on_this_machine({"spec": {"output": {"uri": uri}}}, Path("/here"))
    assert error == FieldError(
        "spec.output.uri",
        f'must be file:// and an absolute path, or a path relative to this file without file:, not "{uri}"',
    )


@pytest.mark.parametrize(
    "data", [{}, {"spec": None}, {"spec": {"input": 5, "model": []}}, {"spec": {"input": {"uri": 5}}}]
)
def test_on_this_machine_leaves_alone_what_it_does_not_understand(data: dict[str, Any]) -> None:
    before = json.dumps(data)
    assert on_this_machine(data, Path("/here")) == []
    assert json.dumps(data) == before


def test_on_this_machine_finds_the_paths_of_a_template_and_leaves_what_is_filled_in() -> None:
    batch = {"input": {"uri": "in {{ window.start.strftime('%Y/%m') }}/*.txt"}, "output": {"uri": "file:out"}}
    data = {"kind": "ScheduledGeneration", "spec": {"template": {"inferenceBatch": batch}}}
    (error,) = on_this_machine(data, Path("/here"))
    assert error.field == "spec.template.inferenceBatch.output.uri"
    assert batch["input"]["uri"] == "file:///here/in%20{{ window.start.strftime('%Y/%m') }}/*.txt"


def test_load_tells_schedules_from_what_is_run() -> None:
    batch = {"model": {"name": "m"}, "input": {"uri": "s3://in/x"}}
    spec = {"schedule": "@daily", "template": {"inferenceBatch": batch}}
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "ScheduledGeneration", "metadata": {"name": "daily"}}
    found = load_text(json.dumps({**head, "spec": spec}))
    assert [it.schedule.metadata.name for it in found.schedules] == ["daily"]
    assert found.batches == ()
