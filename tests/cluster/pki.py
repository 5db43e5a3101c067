"""The cluster's own certificate authority, through the openssl command: no Python package is needed for it."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .messages import ClusterError, Unavailable

_DAYS = "3650"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class KeyPair:
    certificate: Path
    key: Path


class Authority:
    """Keys and certificates in one folder. What exists is kept, so a restarted cluster keeps its identity."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = self._pair("ca")
        self.service_accounts = self._pair("service-accounts")

    def create(self) -> None:
        if shutil.which("openssl") is None:
            raise Unavailable("openssl is not installed: `apt-get install openssl`, or your system's like of it")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for pair, name in ((self.root, "headrace-test-ca"), (self.service_accounts, "service-accounts")):
            if not pair.certificate.exists():
                _openssl("req", "-x509", *_CURVE, "-days", _DAYS, "-subj", f"/CN={name}",
                         "-keyout", pair.key, "-out", pair.certificate)  # fmt: skip

    def client(self, user: str, group: str = "") -> KeyPair:
        """Give a certificate that authenticates a user, optionally as a member of a group."""
        subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
        return self._issue(user.replace(":", "-"), subject, ["extendedKeyUsage=clientAuth"])

    def server(self, name: str, alternatives: Iterable[str]) -> KeyPair:
        """Give a certificate to serve under the given names: `IP:127.0.0.1`, `DNS:localhost`."""
        extensions = ["extendedKeyUsage=serverAuth", f"subjectAltName={','.join(alternatives)}"]
        return self._issue(name, f"/CN={name}", extensions)

    def _issue(self, name: str, subject: str, extensions: list[str]) -> KeyPair:
        pair = self._pair(name)
        if not pair.certificate.exists():
            request, extension_file = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
            extension_file.write_text("\n".join(extensions))
            _openssl("req", "-new", *_CURVE, "-subj", subject, "-keyout", pair.key, "-out", request)
            _openssl("x509", "-req", "-in", request, "-CA", self.root.certificate, "-CAkey", self.root.key,
                     "-CAcreateserial", "-days", _DAYS, "-extfile", extension_file, "-out", pair.certificate)  # fmt: skip
        return pair

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`openssl {arguments[0]}` failed: {done.stderr.strip()}\nRun `down`, then `up` again.")
