"""Answers that are read from somewhere while they are sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Streamed(StreamingResponse):
    """An answer whose source is closed with it.

    When a client goes away the source may be left in the middle. What it holds is then given back by this alone: nobody knows when
    the garbage is collected.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(source, headers=headers, media_type=media_type)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or as much as is wanted."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
