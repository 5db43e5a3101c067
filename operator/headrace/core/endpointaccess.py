"""What a pod is given so that it may ask endpoints: API keys as files, by reference, weights that may change, and the zone that it is in.

Files and no environment variables: the kubelet keeps what it mounts up to date, so a key may be replaced while the pod runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.api.base import JsonObject
from headrace.api.engines import Engine, LoadBalancing, OpenAIEngine
from headrace.api.worker import Env
from headrace.core.observed import Installation

WEIGHTS = "weights"
"""Below the files of a worker: the ConfigMaps with weights of endpoints."""
ZONE_LABEL = "topology.kubernetes.io/zone"
"""Of a node; Kubernetes puts it on the node's pods too."""


@dataclass(frozen=True, slots=True)
class EndpointAccess:
    """Parts of a pod; all empty where no endpoint is asked."""

    variables: tuple[JsonObject, ...] = ()
    volumes: tuple[JsonObject, ...] = ()
    mounts: tuple[JsonObject, ...] = ()


def endpoint_access(engines: Iterable[Engine], place: Installation) -> EndpointAccess:
    """What workers of these engines need at that place."""
    asking = [engine.openai for engine in engines if engine.openai is not None]
    keys = _keys(asking) if place.secrets_root is not None else {}
    maps = sorted({it.weights_config_map_ref.name for it in asking if it.weights_config_map_ref is not None})
    secrets = [(f"{place.secrets_root}/{name}", {"secret": _items(name, wanted)}) for name, wanted in keys.items()]
    weights = [
        (f"{place.files_root}/{WEIGHTS}/{name}", {"configMap": {"name": name, "optional": True}}) for name in maps
    ]
    found = list(enumerate((*secrets, *weights)))
    folders = {Env.SECRETS: place.secrets_root if keys else None}
    folders[Env.CONFIG_MAPS] = f"{place.files_root}/{WEIGHTS}" if maps else None
    return EndpointAccess(
        variables=(*({"name": it.value, "value": path} for it, path in folders.items() if path), *_zone(asking)),
        volumes=tuple({"name": f"endpoints-{number}", **source} for number, (_, source) in found),
        mounts=tuple(
            {"name": f"endpoints-{number}", "mountPath": path, "readOnly": True} for number, (path, _) in found
        ),
    )


def _items(secret: str, keys: Sequence[str]) -> JsonObject:
    return {"secretName": secret, "items": [{"key": key, "path": key} for key in keys]}


def _keys(asking: Sequence[OpenAIEngine]) -> dict[str, list[str]]:
    """The keys that are wanted of each Secret, in the order of their names."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for engine in asking:
        for endpoint in engine.endpoints:
            if endpoint.api_key_secret_ref is not None:
                found[endpoint.api_key_secret_ref.name].add(endpoint.api_key_secret_ref.key)
    return {name: sorted(found[name]) for name in sorted(found)}


def _zone(asking: Sequence[OpenAIEngine]) -> list[JsonObject]:
    if not any(engine.load_balancing == LoadBalancing.LOCALITY for engine in asking):
        return []
    path = f"metadata.labels['{ZONE_LABEL}']"
    return [{"name": Env.ZONE.value, "valueFrom": {"fieldRef": {"fieldPath": path}}}]
