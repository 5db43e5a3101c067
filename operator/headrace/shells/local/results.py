"""Reading what a batch has left, by the worker's own reader, for it knows all stores: as a stream, or line by line while one waits."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable
from subprocess import PIPE

from headrace.api.results import ResultsReport, Wanted, parse_results_report
from headrace.core.reader import reading
from headrace.shells.local.containers import ASIDE, WORKER, Programs
from headrace.shells.local.state import StateError
from headrace.shells.local.turns import take_usual_turns

CHUNK_BYTES = 64 * 1024


async def read_results(output_uri: str, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """The lines of an output, in pieces of any size. Raises `StateError` here when there is nothing that can be read.

    When reading fails later the stream raises it, so that nobody takes a part for the whole. Who does not read to the end closes it:
    until then its reader waits. The reader lets this process pass, which answers others meanwhile.
    """
    pieces = _pieces(output_uri, wanted)
    await anext(pieces, None)
    return pieces


def take_results(output_uri: str, wanted: Wanted, limit: int | None, take: Callable[[bytes], None]) -> ResultsReport:
    """Hand over the lines of an output, at most so many; returns what its reader has said of them. Raises `StateError` when it died."""
    command = _command(WORKER, output_uri, wanted, limit)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=PIPE, stderr=said) as reader,  # noqa: S603 - ours
    ):
        assert reader.stdout is not None
        try:
            for line in reader.stdout:
                take(line)
            reader.wait()
        except BaseException:  # whoever takes the lines has seen enough, or somebody interrupts
            reader.kill()
            raise
        said.seek(0)
        return _report(said.read())


async def _pieces(output_uri: str, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """Nothing, once it can be read, and then what the worker's own reader writes; it is killed when nobody wants more."""
    command = _command(ASIDE, output_uri, wanted, None)
    with tempfile.TemporaryFile() as said:
        # A session of its own: Ctrl-C is for this process, which ends what is under way in good order.
        reader = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=said, start_new_session=True)
        take_usual_turns(reader.pid)
        assert reader.stdout is not None
        try:
            if piece := await reader.stdout.read(CHUNK_BYTES):
                yield b""
            while piece:
                yield piece
                piece = await reader.stdout.read(CHUNK_BYTES)
            await reader.wait()
        finally:
            if reader.returncode is None:
                reader.kill()
                await reader.wait()
        said.seek(0)
        report = _report(said.read())
        if report.failure is not None:
            raise _unreadable(report.failure.message)


def _command(programs: Programs, output_uri: str, wanted: Wanted, limit: int | None) -> list[str]:
    return [*programs["headrace_worker"], *reading(output_uri, wanted, limit)]


def _report(said: bytes) -> ResultsReport:
    """What the reader has said at its end. Raises `StateError` when that is nothing."""
    report = parse_results_report(said)
    if report is None:
        raise _unreadable(said.decode(errors="replace").strip() or "its reader has died")
    return report


def _unreadable(why: str) -> StateError:
    return StateError("OutputUnreadable", f"the output cannot be read: {why}")
