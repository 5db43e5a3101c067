"""The socket of a worker that serves a pool in a cluster: whoever has its key tells it of requests, and hears the answers.

It is there from the beginning, so that nobody is refused while the model is loaded. One at a time is listened to, the one who came last:
whoever came before has died, or leads no more, and what it has told is told again by its successor.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import select
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from headrace.api.worker import Env, Listening, MicroBatch, Opening
from headrace_worker.config import bad_config
from headrace_worker.drain import Drain

_PIECE_BYTES = 1024 * 1024
_MOST_STRANGERS = 8
_LONGEST_OPENING_BYTES = 1024
_SEND_SECONDS = 30.0
"""How long whoever listens may take nothing: then nobody listens."""
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer whose machine has died says nothing about it."""

log = logging.getLogger(__name__)


def load_listening(env: Mapping[str, str]) -> Listening | None:
    """Where to listen, if that is told. Raises `JobFailed`."""
    if not (told := env.get(Env.LISTEN)):
        return None
    try:
        return Listening.model_validate_json(told)
    except ValidationError as error:
        raise bad_config(f"{Env.LISTEN}: {error}") from error


def open_listener(listening: Listening, address: str | None) -> socket.socket:
    """The socket, at that address or at all of them. Raises `JobFailed`."""
    every = address or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104 - of the pod, and nobody is let in without the key
    family = socket.AF_INET6 if ":" in every else socket.AF_INET
    try:
        return socket.create_server(
            (every, listening.port), family=family, backlog=_MOST_STRANGERS, dualstack_ipv6=every == "::"
        )
    except OSError as error:
        raise bad_config(f"{Env.LISTEN}: cannot listen at {every}, port {listening.port}: {error.strerror}") from error


class _Stranger:
    """Somebody who has not said the key."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.said = connection, b""


class SocketFeed:
    """What a worker is told, and what it says."""

    def __init__(self, listener: socket.socket, listening: Listening) -> None:
        self._listener, self._listening = listener, listening
        self._strangers: list[_Stranger] = []
        self._peer: socket.socket | None = None
        self._rest = b""
        self._alone_since: float | None = None
        self._is_new = False
        listener.settimeout(0)

    def begins_anew(self) -> bool:
        """Whether who had told it of requests is gone since it was last asked, or another has come: nobody waits for those."""
        found, self._is_new = self._is_new, False
        return found

    def wait(self, seconds: float, drain: Drain) -> None:
        """Wait until there is something to hear, or a request to stop."""
        if self._peer is None:
            seconds = min(seconds, self._patience_left())
        drain.wait(seconds, *(one.fileno() for one in self._sockets()))

    def take(self, drain: Drain) -> list[MicroBatch]:
        """What has been told since it was last asked; waits for nothing. When nobody comes for too long that is a request to stop."""
        self._let_in()
        for stranger in [*self._strangers]:
            if _is_readable(stranger.connection):
                self._listen_to(stranger)
        while self._peer is not None and _is_readable(self._peer):
            self._read(self._peer)
        *lines, self._rest = self._rest.split(b"\n")
        if self._peer is None and not self._patience_left():
            log.info("nobody has come for %d seconds", self._listening.patience_seconds)
            drain.request()
        return [MicroBatch.model_validate_json(line) for line in lines if line]

    def say(self, lines: bytes) -> None:
        """Say whole lines, if anybody listens; who comes later tells again what it wants to know."""
        if self._peer is None:
            return
        try:
            self._peer.sendall(lines)
        except OSError as error:
            self._hang_up(f"it does not listen: {error.strerror or error}")

    def close(self) -> None:
        """Hear and say nothing more."""
        for one in self._sockets():
            one.close()

    def _sockets(self) -> list[socket.socket]:
        peer = [self._peer] if self._peer is not None else []
        return [self._listener, *(one.connection for one in self._strangers), *peer]

    def _patience_left(self) -> float:
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        return max(0.0, self._alone_since + self._listening.patience_seconds - now)

    def _let_in(self) -> None:
        """Those who wait at the door; of too many who say nothing, the oldest go."""
        while _is_readable(self._listener):
            with suppress(OSError):  # it has gone meanwhile
                connection, _ = self._listener.accept()
                connection.settimeout(_SEND_SECONDS)
                self._strangers.append(_Stranger(connection))
        while len(self._strangers) > _MOST_STRANGERS:
            self._strangers.pop(0).connection.close()

    def _listen_to(self, stranger: _Stranger) -> None:
        try:
            piece = stranger.connection.recv(_LONGEST_OPENING_BYTES)
        except OSError:
            piece = b""
        stranger.said += piece
        opening, line_end, rest = stranger.said.partition(b"\n")
        if piece and not line_end and len(opening) < _LONGEST_OPENING_BYTES:
            return
        self._strangers.remove(stranger)
        if line_end and self._is_opened_by(opening):
            self._take_up(stranger.connection, rest)
        else:
            log.warning("somebody came without the key")
            stranger.connection.close()

    def _is_opened_by(self, opening: bytes) -> bool:
        try:
            key = Opening.model_validate_json(opening).key
        except ValidationError:
            return False
        return hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), self._listening.key_sha256)

    def _take_up(self, connection: socket.socket, rest: bytes) -> None:
        if self._peer is not None:
            self._hang_up("another has come")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._peer, self._rest, self._alone_since, self._is_new = connection, rest, None, True

    def _read(self, peer: socket.socket) -> None:
        try:
            piece = peer.recv(_PIECE_BYTES)
        except OSError as error:
            self._hang_up(str(error))
            return
        self._rest += piece
        if not piece:
            self._hang_up("it is gone")

    def _hang_up(self, why: str) -> None:
        """Nobody waits for what was told."""
        log.info("whoever told of requests is not listened to any more: %s", why)
        if self._peer is not None:
            self._peer.close()
        self._peer, self._rest, self._alone_since, self._is_new = None, b"", None, True


def _is_readable(one: socket.socket) -> bool:
    return bool(select.select([one], [], [], 0)[0])
