"""What opens a NATS server, read from a folder such as a mounted Secret: `token`, or `username` and `password`, or `nats.creds`.

`ca.crt` is whom a server with TLS is to be vouched for by, and `tls.crt` and `tls.key` are what this client is known by there.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from headrace.gateway.queues.natsserver import Address, NoServer


def opening(address: Address) -> dict[str, Any]:
    """Options of the client. Raises `NoServer` when a file is not what it should be."""
    folder = address.credentials
    if folder is None:
        return {"token": address.token}
    if not folder.is_dir():
        raise NoServer(f"there is no folder {folder} with the credentials of the NATS server")
    options: dict[str, Any] = {
        option: (folder / file).read_text().strip()
        for file, option in (("token", "token"), ("username", "user"), ("password", "password"))
        if (folder / file).is_file()
    }
    if (folder / "nats.creds").is_file():
        options["user_credentials"] = str(folder / "nats.creds")
    if address.url.startswith("tls://") or (folder / "ca.crt").is_file() or (folder / "tls.crt").is_file():
        options["tls"] = _tls(folder)
    if not options:
        raise NoServer(f"{folder} has none of token, username, nats.creds, ca.crt and tls.crt")
    return options


def _tls(folder: Path) -> ssl.SSLContext:
    authority = folder / "ca.crt"
    try:
        context = ssl.create_default_context(cafile=str(authority) if authority.is_file() else None)
        if (folder / "tls.crt").is_file():
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except (ssl.SSLError, OSError) as error:
        raise NoServer(f"the certificates in {folder} cannot be used: {error}") from error
    return context
