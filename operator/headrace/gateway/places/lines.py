"""Lines out of a stream that comes in pieces of any size."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing


async def lines(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The lines, without those that are blank; the last need not end in a newline. The stream is closed with them."""
    rest: list[bytes] = []
    async with aclosing(pieces):
        async for piece in pieces:
            first, *more = piece.split(b"\n")
            rest.append(first)
            for start in more:
                if line := b"".join(rest).strip():
                    yield line
                rest = [start]
    if line := b"".join(rest).strip():
        yield line
