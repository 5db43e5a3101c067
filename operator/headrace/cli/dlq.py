"""`headrace dlq`: requests that a gateway could not get answered, and asking them again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from headrace.cli.exits import BAD_INPUT, FAILED, CliError
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
        asked = Request(f"{_base(self.base_url)}{path}", method=method, headers=_headers())  # noqa: S310 - looked at
        try:
            with urlopen(asked, timeout=_PATIENCE_SECONDS) as response:  # noqa: S310 - as above
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            raise CliError("Refused", f"the gateway says: {_message(error)}", FAILED) from error
        except (HTTPException, OSError, ValueError) as error:  # whoever listens there may speak anything
            message = f"no gateway answers at {self.base_url}: {error}; say --gateway URL"
            raise CliError("NoGateway", message, FAILED) from error


def _base(url: str) -> str:
    """A base URL, whose `/v1` may be left out. Raises `CliError`."""
    try:
        parts = urlsplit(url.rstrip("/"))
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        message = f"--gateway must be the base URL of a gateway, such as http://127.0.0.1:8080/v1, not {url[:200]}"
        raise CliError("UsageError", message, BAD_INPUT)
    return url.rstrip("/") if parts.path else f"{url.rstrip('/')}/v1"


def _headers() -> dict[str, str]:
    """What the gateway knows its tenant by. Raises `CliError`, which does not show the key."""
    key = os.environ.get("HEADRACE_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        message = "HEADRACE_API_KEY must be a key alone, in one line, as `headrace key` prints it"
        raise CliError("UsageError", message, BAD_INPUT)
    return {"Authorization": f"Bearer {key}"} if key else {}


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
