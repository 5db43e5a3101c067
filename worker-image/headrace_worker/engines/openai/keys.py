"""API keys: read from a file that the kubelet keeps up to date, or on a laptop from the environment. They are never written anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headrace.api.common import SecretKeyRef
from headrace.api.worker import Env
from headrace_worker.errors import JobFailed

ROTATION_SECONDS = 180.0
"""How long a new key may take to reach a pod after the old one was revoked: the kubelet looks every minute or so."""


class Key:
    """The API key of one endpoint, or none."""

    def __init__(self, ref: SecretKeyRef | None, env: Mapping[str, str]) -> None:
        self._ref, self._env = ref, env
        folder = env.get(Env.SECRETS)
        self._file = Path(folder, ref.name, ref.key) if ref is not None and folder else None
        self._seen: tuple[int, int] | None = None
        self._key: str | None = None
        self._works = False
        self._refused_at: float | None = None

    def read(self) -> str | None:
        """The key as it is now; None when there is none to send. Raises `JobFailed`."""
        if self._ref is None:
            return None
        if self._file is None:
            return self._checked(
                self._env.get(self._ref.variable, ""), f"the environment variable {self._ref.variable}"
            )
        where = f"the Secret {self._ref.name}, key {self._ref.key}"
        try:
            found = self._file.stat()
            if self._seen != (found.st_ino, found.st_mtime_ns):
                self._key = self._checked(self._file.read_text(encoding="utf-8", errors="replace"), where)
                self._seen = (found.st_ino, found.st_mtime_ns)
        except OSError as error:
            raise JobFailed(
                "KeyMissing", f"{where} cannot be read ({error.strerror}): it must hold an API key"
            ) from error
        return self._key

    def worked(self) -> None:
        """An endpoint has taken the key."""
        self._works, self._refused_at = True, None

    def may_change(self, used: str | None, now: float) -> bool:
        """An endpoint has refused the key; whether there is another one by now, or may be soon. One that never worked is just wrong."""
        if self._file is None:
            return False
        if self.read() != used:
            return True
        self._refused_at = now if self._refused_at is None else self._refused_at
        return self._works and now - self._refused_at < ROTATION_SECONDS

    def _checked(self, text: str, where: str) -> str:
        key = text.strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise JobFailed("KeyMissing", f"{where} must hold an API key: one word of printable ASCII characters")
        return key
