"""`manifests/install.yaml`: what the chart makes of its default values, for who uses no Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml

from headrace.api.base import JsonObject
from headrace.api.crd import manifest_yaml

NAMESPACE = "headrace-system"
_HEADER = (
    "# Generated from charts/headrace by `make generate`. Do not edit: `kubectl apply -k` with a kustomization of yours can change it.\n"
    "# kubectl apply --server-side -f manifests/install.yaml\n"
)
_HELM_ONLY = ("helm.sh/", "app.kubernetes.io/managed-by")
_FIRST = ("Namespace", "CustomResourceDefinition")


def install_manifest(helm: Path, chart: Path) -> str:
    """All objects of a release as one stream, the namespace and the kinds first.

    The default Bulkhead is not among them: nothing can be made of a kind in the moment that the kind is. While there is none, nothing
    is limited.
    """
    command = [str(helm), "template", "headrace", str(chart), "--namespace", NAMESPACE, "--no-hooks"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    objects = [namespace, *filter(None, yaml.safe_load_all(done.stdout))]
    objects.sort(key=lambda it: _FIRST.index(it["kind"]) if it["kind"] in _FIRST else len(_FIRST))
    return _HEADER + "---\n".join(manifest_yaml(_without_helm(it)) for it in objects)


def _without_helm(found: JsonObject) -> JsonObject:
    metadata = found["metadata"]
    for part in ("labels", "annotations"):
        kept = _other(metadata.get(part, {}).items())
        metadata.pop(part, None)
        if kept:
            metadata[part] = kept
    template = found.get("spec", {}).get("template")
    if template is not None:
        template["metadata"]["labels"] = _other(template["metadata"]["labels"].items())
    return found


def _other(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in items if not name.startswith(_HELM_ONLY)}
