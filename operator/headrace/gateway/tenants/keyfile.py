"""Tenants by the keys of a file, which is read again when it has changed."""

from __future__ import annotations

import logging
from pathlib import Path

from starlette.requests import HTTPConnection

from headrace.api.asking import Webhooks
from headrace.api.tenancy import KeyedTenants, Tenant
from headrace.core.tenancy.keys import bearer, offered, tenant_of_key, unknown
from headrace.shells.problems import ManifestError
from headrace.shells.tenants import load_tenants

logger = logging.getLogger(__name__)


class KeyFile:
    """`Identities` of a file."""

    def __init__(self, file: Path) -> None:
        """Raises `ManifestError`."""
        self._file = file
        self._version = _version(file)
        self._known = load_tenants(file)

    @property
    def may_call(self) -> bool:
        """It may be written there at any time."""
        return True

    async def tenant(self, request: HTTPConnection) -> Tenant:
        """The one whose key the request has."""
        headers = request.headers
        key = bearer(headers.get("authorization"), offered(headers.get("sec-websocket-protocol")))
        found = tenant_of_key(key, self._tenants())
        if found is None:
            raise unknown("the key is not known here")
        return found

    def webhooks(self, namespace: str) -> Webhooks | None:
        """Those of the tenant, as the file has them now."""
        found = (one.tenant for one in self._tenants().tenants)
        return next((one.webhooks for one in found if one.namespace == namespace), None)

    def _tenants(self) -> KeyedTenants:
        """As the file has them now. One that cannot be read changes nothing: nobody is let in, or shut out, by a slip of the pen."""
        version = _version(self._file)
        if version != self._version:
            self._version = version
            try:
                self._known = load_tenants(self._file)
                logger.info("%s has changed: it is read again", self._file)
            except ManifestError as error:
                logger.error("%s has changed and is not good; what it was before holds: %s", self._file, error)
        return self._known


def _version(file: Path) -> tuple[int, int, int] | None:
    """Another whenever the file has changed."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
