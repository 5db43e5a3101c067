"""Reading what a batch has left, as a stream, in a process that may be busy with other things."""

from __future__ import annotations

import asyncio
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator

from headrace.api.results import Wanted, parse_results_report
from headrace.core.reader import reading
from headrace.shells.local.containers import WORKER
from headrace.shells.local.state import StateError

CHUNK_BYTES = 64 * 1024


async def read_results(output_uri: str, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """The lines of an output, in pieces of any size. Raises `StateError` here when there is nothing that can be read.

    When reading fails later the stream raises it, so that nobody takes a part for the whole. Who does not read to the end closes it:
    until then its reader waits.
    """
    pieces = _pieces(output_uri, wanted)
    await anext(pieces, None)
    return pieces


async def _pieces(output_uri: str, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """Nothing, once it can be read, and then what the worker's own reader writes; it is killed when nobody wants more."""
    command = [*WORKER["headrace_worker"], *reading(output_uri, wanted, None)]
    with tempfile.TemporaryFile() as said:
        # A session of its own: Ctrl-C is for this process, which ends what is under way in good order.
        reader = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=said, start_new_session=True)
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
        _check(said.read())


def _check(said: bytes) -> None:
    """Raise `StateError` unless the reader has said that this was all."""
    report = parse_results_report(said)
    if report is None:
        why = said.decode(errors="replace").strip() or "its reader has died"
        raise StateError("OutputUnreadable", f"the output cannot be read: {why}")
    if report.failure is not None:
        raise StateError("OutputUnreadable", f"the output cannot be read: {report.failure.message}")
