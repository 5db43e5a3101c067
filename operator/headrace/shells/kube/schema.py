"""The check before acting: the installed CRD must be the one that this operator was made for.

The API server drops fields that its CRD does not know, silently. Acting on such an object would run something else than its owner wrote.
"""

from __future__ import annotations

from headrace.api import labels
from headrace.api.crd import custom_resource_definition
from headrace.api.kinds import KINDS
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import NotFound
from headrace.shells.kube.resources import CRDS


class SchemaMismatch(Exception):
    """The installed CRD is not ours, or there is none."""


async def check_schema(api: Api) -> None:
    """Raise `SchemaMismatch` unless every kind's CRD is installed in exactly our version."""
    for kind in KINDS:
        ours = custom_resource_definition(kind)
        name = ours["metadata"]["name"]
        try:
            found = await api.get(CRDS, None, name)
        except NotFound:
            raise SchemaMismatch(f"the CRD {name} is not installed: kubectl apply --server-side -f crds/") from None
        installed = found["metadata"].get("annotations", {}).get(labels.SCHEMA_DIGEST)
        if installed != ours["metadata"]["annotations"][labels.SCHEMA_DIGEST]:
            raise SchemaMismatch(
                f"the CRD {name} is not of this operator's version, fields would be lost: kubectl apply --server-side -f crds/"
            )
