"""The file that says who the tenants of a gateway are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from headrace.api.base import FieldError, InvalidSpec
from headrace.api.tenancy import KeyedTenants
from headrace.core.tenancy.keys import tenant_faults
from headrace.shells.documents import Document, one_document
from headrace.shells.served import key_faults


def load_tenants(file: Path) -> KeyedTenants:
    """The tenants in a file. Raises `ManifestError` with the lines of all that is wrong."""
    document = one_document(file, "tenants")
    try:
        tenants = KeyedTenants.parse(_localised(document))
        faults = [*tenant_faults(tenants), *_webhook_faults(tenants)]
    except InvalidSpec as error:
        faults = [_without_key(e) for e in error.errors]
    document.refuse(faults)
    return tenants


def _localised(document: Document) -> dict[str, Any]:
    """Its data, in which paths are no longer relative to the file."""
    data: dict[str, Any] = copy.deepcopy(document.data)
    tenants = data.get("tenants")
    for one in tenants if isinstance(tenants, list) else ():
        webhooks = one.get("webhooks") if isinstance(one, dict) else None
        if isinstance(webhooks, dict) and isinstance(webhooks.get("keysFile"), str):
            webhooks["keysFile"] = str(document.folder / webhooks["keysFile"])
    return data


def _without_key(error: FieldError) -> FieldError:
    """What stands in the place of a hash may be the key itself, which is nothing to show."""
    return FieldError(error.field, "must be a hash that `headrace key` prints") if ".keys[" in error.field else error


def _webhook_faults(tenants: KeyedTenants) -> list[FieldError]:
    faults, seen = [], set[str]()
    for index, one in enumerate(tenants.tenants):
        at = f"tenants[{index}]"
        faults += [FieldError(f"{at}.{e.field}", e.message) for e in key_faults(one.webhooks)]
        if one.webhooks is not None:
            if one.webhooks.keys_file in seen:
                message = f"{one.webhooks.keys_file} is another's: with its keys this tenant could sign for that one"
                faults.append(FieldError(f"{at}.webhooks.keysFile", message))
            seen.add(one.webhooks.keys_file)
    return faults
