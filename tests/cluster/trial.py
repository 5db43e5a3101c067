"""What an API server would store, and what it refuses, asked directly: of hundreds of objects, with no program started for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config

from headrace.api.base import JsonObject
from headrace.api.kinds import kind_named

from .cluster import Cluster

_NAMESPACE = "default"


class RefusedError(Exception):
    """The API server refuses an object, in its own words."""


class Trial:
    """Dry runs on a cluster, as strict as those of kubectl."""

    def __init__(self, cluster: Cluster) -> None:
        self._api = client.CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))

    def create(self, document: JsonObject) -> JsonObject:
        """The object as it would be stored. Raises `RefusedError`."""
        place = _place(document)
        namespaced, plain = self._api.create_namespaced_custom_object, self._api.create_cluster_custom_object
        return _asked(namespaced if "namespace" in place else plain, place, document)

    def replace(self, document: JsonObject) -> JsonObject:
        """The object as it would be stored in the place of the one that is there. Raises `RefusedError`."""
        place = {**_place(document), "name": document["metadata"]["name"]}
        known = self._api.get_namespaced_custom_object(**place)
        metadata = {**document["metadata"], "resourceVersion": known["metadata"]["resourceVersion"]}
        return _asked(self._api.replace_namespaced_custom_object, place, {**document, "metadata": metadata})

    @contextmanager
    def holding(self, document: JsonObject) -> Iterator[None]:
        """With the object there in earnest."""
        place = _place(document)
        self._api.create_namespaced_custom_object(**place, body=document)
        try:
            yield
        finally:
            self._api.delete_namespaced_custom_object(**place, name=document["metadata"]["name"])


def _asked(call: Callable[..., Any], place: JsonObject, document: JsonObject) -> JsonObject:
    try:
        stored: JsonObject = call(**place, body=document, dry_run="All", field_validation="Strict")
    except client.ApiException as error:
        raise RefusedError(json.loads(error.body)["message"]) from error
    return stored


def _place(document: JsonObject) -> JsonObject:
    kind = kind_named(document["kind"])
    assert kind is not None
    group, version = document["apiVersion"].split("/")
    namespace = {"namespace": _NAMESPACE} if kind.scope == "Namespaced" else {}
    return {"group": group, "version": version, "plural": kind.plural, **namespace}
