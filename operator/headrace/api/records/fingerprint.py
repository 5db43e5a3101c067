"""What a record asks, in one number: records with equal fingerprints have the same question for the same model."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import orjson

from headrace.api.base import JsonObject
from headrace.api.engines import Engine
from headrace.api.model import Model

_BYTES = 16


def fingerprinter(model: Model, engine: Engine) -> Callable[[JsonObject], str]:
    """From the body of a request, the batch's parameters in it, to its fingerprint in hex. The order of fields does not matter."""
    asked = [model.to_object(), engine.name.value]
    before = blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=_BYTES)

    def fingerprint(body: JsonObject) -> str:
        digest = before.copy()
        digest.update(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
        return digest.hexdigest()

    return fingerprint
