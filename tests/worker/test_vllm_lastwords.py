"""What the processes of vLLM have said last, heard from real processes that say things and end."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from headrace_worker.engines.vllm.lastwords import LastWords, cause_in


def say(text: str, lines_before: int = 0) -> subprocess.Popen[bytes]:
    """A process that says something on standard error, once a line comes on its standard input."""
    code = f"import sys; input(); sys.stderr.write('a line\\n' * {lines_before} + {text!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate(b"\n")


def test_cause_is_what_a_process_has_said_before_its_end_and_the_log_has_it_too(
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = LastWords()
    with words.heard():
        process = say("loading\nValueError: too long\nbye\n")
    os.write(2, b"of the worker\n")
    assert words.cause() is None
    end(process)
    assert words.cause() == "ValueError: too long"
    words.close()
    assert capfd.readouterr().err == "of the worker\nloading\nValueError: too long\nbye\n"


def test_cause_of_processes_that_have_said_much_comes_after_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    words = LastWords()
    with words.heard():
        processes = [say(f"ValueError: {number}\n", lines_before=20_000) for number in range(2)]
    for process in processes:
        end(process)
    assert words.cause() == "ValueError: 1"
    words.close()
    assert capfd.readouterr().err.count("a line\n") == 40_000


def test_heard_leaves_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with LastWords().heard():
        pass
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=os.write, args=(2, b"of another\n"))
    other.start()
    other.join()
    assert capfd.readouterr().err == "of another\n"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        pytest.param(["torch.OutOfMemoryError: CUDA out of memory."], "torch.OutOfMemoryError: CUDA out of memory.", id="alone"),
        pytest.param(
            [
                "(EngineCore pid=7) ERROR 11-23 04:01:44 [core.py:1200] Traceback (most recent call last):",
                "(EngineCore pid=7) ERROR 11-23 04:01:44 [core.py:1200] ValueError: No available memory for the cache blocks.",
                "(MainProcess pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            "ValueError: No available memory for the cache blocks.",
            id="before what another process says of it",
        ),
        pytest.param(
            ["\x1b[1;36m(Worker pid=8)\x1b[0;0m ERROR 11-23 04:01:44 [a.py:1] KeyError: 'x'"], "KeyError: 'x'", id="in colours"
        ),
        pytest.param(["KeyError: 'x'", "OSError: y"], "OSError: y", id="the last of two"),
        pytest.param(["WARNING: an Error: none", "no_error: x", "it said ValueError: z"], None, id="nothing that was raised"),
        pytest.param([f"ValueError: {'x' * 1000}"], f"ValueError: {'x' * 488}", id="cut where it is long"),
    ],
)  # fmt: skip
def test_cause_in_a_log(said: list[str], cause: str | None) -> None:
    assert cause_in(said) == cause
