"""What this machine can do for a batch, and what it cannot."""

from __future__ import annotations

import os
from importlib.util import find_spec

from headrace.api.base import FieldError
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.core.check import spec_problems
from headrace.core.fanout.check import fan_out_problems
from headrace.core.fanout.observed import as_batch
from headrace.core.observed import Installation
from headrace.shells.local.state import BatchFolder, StateDir
from headrace.shells.local.traces import tracing_here
from headrace.shells.manifests import ConfigMap

_ONLY_IN_A_CLUSTER = "is there only in a cluster: on this machine give a path, or a file:// URI"
_STORAGE_VARIABLES = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SKIP_SIGNATURE",
    ),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_TOKEN", "AZURE_SKIP_SIGNATURE"),
}
"""Object stores by their schemes, and the variables any one of which says how to get in."""
MOST_BRANCHES = 4
"""Branches of a FanOutJob that share this machine, if it has as many cores."""
_NO_ENGINE = "this version has no such engine: must be transformers, openai or mock"


def installation(state: StateDir, folder: BatchFolder) -> Installation:
    """What the core has to know about this machine to run the batch of that folder."""
    return Installation(
        default_output=state.default_output,
        files_root=str(folder.files),
        secrets_root=None,
        max_parallel_branches=most_branches(),
        no_containers="no container is started on this machine: run this in a cluster, or choose another aggregation.type",
        unsupported_engines=_unsupported_engines(),
        unsupported_schemes={
            "claim": f"a claim {_ONLY_IN_A_CLUSTER}",
            "oci": f"an image volume {_ONLY_IN_A_CLUSTER}",
        },
        tracing=tracing_here(),
    )


def problems(wanted: OurObject, state: StateDir, config_maps: tuple[ConfigMap, ...] = ()) -> list[FieldError]:
    """All that keeps the object from running here; `config_maps` come with it, others are in the state folder.

    What is wrong with one branch of a fan-out alone is not among it: the others run.
    """
    place = installation(state, state.batch(wanted.metadata.namespace, wanted.metadata.name))
    if isinstance(wanted, FanOutJob):
        batch, found = as_batch(wanted, place), list(fan_out_problems(wanted, place))
    else:
        batch, found = wanted, list(spec_problems(wanted, place))
    return [*found, *_secret_problems(batch), *_config_map_problems(batch, state, config_maps)]


def most_branches() -> int:
    """Branches with a model at once: each is a process with one, on one machine. Others only wait for somebody else."""
    return min(MOST_BRANCHES, os.cpu_count() or 1)


def _unsupported_engines() -> dict[str, str]:
    missing = [module for module in ("torch", "transformers") if find_spec(module) is None]
    unsupported = {"vllm": _NO_ENGINE}
    if missing:
        advice = 'pip install "headrace[worker]"'
        unsupported["transformers"] = f"needs the Python package {missing[0]}, which is not installed here: {advice}"
    return unsupported


def _secret_problems(batch: InferenceBatch) -> list[FieldError]:
    """A Secret's value comes from the environment here, so it must be there."""
    return [*_hub_problems(batch), *_storage_problems(batch), *_key_problems(batch)]


def _key_problems(batch: InferenceBatch) -> list[FieldError]:
    endpoints = batch.spec.engine.openai.endpoints if batch.spec.engine.openai is not None else ()
    wanted = ((number, it.api_key_secret_ref) for number, it in enumerate(endpoints))
    return [
        FieldError(
            f"spec.engine.openai.endpoints[{number}].apiKeySecretRef",
            f"there are no Secrets on this machine: put the key into the environment variable {ref.variable}",
        )
        for number, ref in wanted
        if ref is not None and not os.environ.get(ref.variable)
    ]


def _storage_problems(batch: InferenceBatch) -> list[FieldError]:
    if batch.spec.storage is None:
        return []
    source = batch.spec.model.source
    uris = (batch.spec.input.uri, batch.spec.output.uri, source.uri if source is not None else None)
    used = sorted({uri.partition(":")[0] for uri in uris if uri} & _STORAGE_VARIABLES.keys())
    missing = [scheme for scheme in used if not any(map(os.environ.get, _STORAGE_VARIABLES[scheme]))]
    return [
        FieldError(
            "spec.storage.secretRef",
            f"there are no Secrets on this machine: put what opens {scheme}:// into the environment, "
            f"for example {_STORAGE_VARIABLES[scheme][0]}",
        )
        for scheme in missing
    ]


def _hub_problems(batch: InferenceBatch) -> list[FieldError]:
    source = batch.spec.model.source
    hub = source.hugging_face if source is not None else None
    if hub is None or hub.token_secret_ref is None or os.environ.get("HF_TOKEN"):
        return []
    advice = "there are no Secrets on this machine: put the token into the environment variable HF_TOKEN"
    return [FieldError("spec.model.source.huggingFace.tokenSecretRef", advice)]


def _config_map_problems(
    batch: InferenceBatch, state: StateDir, config_maps: tuple[ConfigMap, ...]
) -> list[FieldError]:
    wanted, namespace = batch.spec.input.config_map_ref, batch.metadata.namespace
    if wanted is None:
        return []
    given = (it for it in config_maps if (it.metadata.namespace, it.metadata.name) == (namespace, wanted.name))
    found = next(given, None) or state.config_map(namespace, wanted.name)
    if found is None:
        advice = "put it into the same file, or run a file with it first"
        message = f"there is no ConfigMap {wanted.name} in the namespace {namespace}: {advice}"
        return [FieldError("spec.input.configMapRef.name", message)]
    keys = sorted([*found.data, *found.binary_data])
    if wanted.key is not None and wanted.key not in keys:
        message = f"the ConfigMap {wanted.name} has no key {wanted.key}: it has {', '.join(keys) or 'none'}"
        return [FieldError("spec.input.configMapRef.key", message)]
    return []
