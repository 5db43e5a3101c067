"""`headrace dlq`: requests that a gateway could not get answered, and asking them again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from headrace.cli.exits import FAILED, CliError
from headrace.cli.text import age, plain, say, say_json, table

_PATIENCE_SECONDS = 60
_PAGE = 1000
_MESSAGE_WIDTH = 60


def list_letters(base_url: str, route: str | None, output: str) -> int:
    """Show them, the newest first. Raises `CliError`."""
    found = list(_Gateway(base_url).letters(route))
    if output == "json":
        say_json(found)
    elif not found:
        say("no dead letters")
    else:
        say(table([("REQUEST", "STATUS", "REASON", "AGE", "MESSAGE"), *map(_row, found)]))
    return 0


def replay(base_url: str, ids: Sequence[str], route: str | None, output: str) -> int:
    """Ask these again, or all of a route or of all routes when there are no ids. Raises `CliError`."""
    gateway = _Gateway(base_url)
    wanted = list(ids) or [one["id"] for one in gateway.letters(route)]
    replayed = []
    for name in wanted:
        new = gateway.ask("POST", f"/dead_letters/{quote(name, safe='')}/replay")["id"]
        replayed.append({"id": name, "replayed_as": new})
        if output != "json":
            say(f"{name} is asked again as {new}")
    if output == "json":
        say_json(replayed)
    return 0


@dataclass(frozen=True, slots=True)
class _Gateway:
    """A gateway that listens somewhere."""

    base_url: str

    def letters(self, route: str | None) -> Iterator[dict[str, Any]]:
        """All dead letters, page by page."""
        query: dict[str, Any] = {"limit": _PAGE, **({"route": route} if route is not None else {})}
        while True:
            found = self.ask("GET", f"/dead_letters?{urlencode(query)}")
            yield from found["data"]
            if not found["has_more"]:
                return
            query["after"] = found["next"]

    def ask(self, method: str, path: str) -> dict[str, Any]:
        """What it answers. Raises `CliError`."""
        key = os.environ.get("HEADRACE_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        asked = Request(f"{self.base_url.rstrip('/')}{path}", method=method, headers=headers)  # noqa: S310 - the user's own address
        try:
            with urlopen(asked, timeout=_PATIENCE_SECONDS) as response:  # noqa: S310 - as above
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            raise CliError("Refused", f"the gateway says: {_message(error)}", FAILED) from error
        except (URLError, OSError, ValueError) as error:
            message = f"no gateway answers at {self.base_url}: {error}; say --gateway URL"
            raise CliError("NoGateway", message, FAILED) from error


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    error, ended = letter["error"] or {}, letter["completed_at"]
    since = datetime.fromtimestamp(ended, UTC) if ended is not None else None
    message = plain(error.get("message", ""), _MESSAGE_WIDTH)
    return letter["id"], letter["status"], error.get("code", ""), age(since, datetime.now(UTC)), message


def _message(error: HTTPError) -> str:
    try:
        said: str = json.loads(error.read())["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
    return said
