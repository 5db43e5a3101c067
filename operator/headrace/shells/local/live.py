"""How far a running worker is, asked at its metrics port."""

from __future__ import annotations

import http.client
from pathlib import Path

from headrace.api.worker import Report, parse_report

TIMEOUT_SECONDS = 0.25
_MOST_BYTES = 64 * 1024


def ask_progress(port_file: Path) -> Report | None:
    """The live report of a worker; None while it does not answer: it starts, is busy, or has just ended."""
    try:
        port = int(port_file.read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/progress")
            return parse_report(connection.getresponse().read(_MOST_BYTES))
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return None
