"""`headrace gateway` against a cluster: the same, where batches are InferenceBatches that its operator works on."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.api.base import FieldError
from headrace.api.fanoutjob import FanOutJob
from headrace.api.gateway import ServedModels
from headrace.api.kinds import OurObject
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.gateway import (
    LOOPBACK,
    Options,
    Parts,
    load_parts,
    open_listener,
    queue_server,
    tell,
    told_of_no_queue,
    who_is_who,
)
from headrace.cli.signals import Signals
from headrace.core.check import spec_problems
from headrace.core.fanout.check import fan_out_problems
from headrace.core.observed import Installation
from headrace.shells.local.state import StateError
from headrace.shells.manifests import check_namespace
from headrace.shells.served import load_models

SOMEWHERE = Installation(default_output="file:///somewhere")
"""What is known here of a cluster's installation: only its operator knows more."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What the command line says about the cluster."""

    context: str | None
    kubeconfig: Path | None
    files: str | None
    mount: Sequence[str]
    token_review: bool
    audience: Sequence[str]
    worker_image: str | None
    pool_owner: str | None


def gateway(options: Mapping[str, Any], cluster: Mapping[str, Any]) -> int:
    """Serve until told to stop. Raises `CliError` when it cannot begin."""
    asked, there, parts = Options(**options), ClusterOptions(**cluster), load_parts("cluster", "gathering.podworkers")
    models = load_models(asked.models, _problems)
    if _has_pools(models) and there.worker_image is None:
        raise CliError(
            "UsageError", "a route has a warmPool: name the image of its workers with --worker-image", BAD_INPUT
        )
    if models.routes and asked.nats is None:
        raise CliError(
            "UsageError", "the models have routes, and their requests a queue: name it with --nats", BAD_INPUT
        )
    if there.files is None:
        raise CliError("UsageError", "uploads must have a place that pods see too: name it with --files", BAD_INPUT)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        listener = stack.enter_context(open_listener(asked, parts))
        signals = stack.enter_context(Signals("stopping: what is under way has ten seconds; once more ends it"))
        with told_of_no_queue(parts):
            parts["serving"].run(_serve(asked, there, models, (parts, listener, signals)))
    return 0


def _has_pools(models: ServedModels) -> bool:
    return any(route.target.warm_pool is not None for route in models.routes)


def _pods(there: ClusterOptions, models: ServedModels, parts: Parts, namespace: str, own: str) -> Any:
    """What the pods of warm pools are like; `own` is the namespace of the gateway."""
    if not _has_pools(models) or there.worker_image is None:
        return None
    place = Installation(worker_image=there.worker_image)
    return parts["podworkers"].PodSettings(namespace, own, place, there.pool_owner)


def _problems(work: OurObject) -> list[FieldError]:
    return list(fan_out_problems(work, SOMEWHERE) if isinstance(work, FanOutJob) else spec_problems(work, SOMEWHERE))


async def _serve(
    asked: Options, there: ClusterOptions, models: ServedModels, around: tuple[Parts, socket.socket, Signals]
) -> None:
    parts, listener, signals = around
    context = await _context(there)
    namespace = asked.namespace or context.namespace
    check_namespace(namespace)
    in_pod = there.context is None and there.kubeconfig is None
    own = context.namespace if in_pod else namespace
    settings = parts["cluster"].Settings(
        namespace=own,
        files=there.files,
        mounted=_mounted(there.mount),
        identity=f"{socket.gethostname()}-{secrets.token_hex(3)}",
        pods=_pods(there, models, parts, namespace, own),
    )
    async with AsyncExitStack() as stack:
        try:
            parts["cluster"].check_settings(settings)
        except StateError as error:
            raise CliError(error.reason, f"--files {error.message}", BAD_INPUT) from error
        renewal = asyncio.create_task(context.renew_credentials())
        stack.callback(renewal.cancel)
        opened = await stack.enter_async_context(parts["cluster"].cluster(context.configuration, models, settings))
        identities = await _identities((asked, there), context.configuration, namespace, models, parts, stack)
        limits = parts["limits"].Limits(file_bytes=asked.max_file_bytes)
        hosts = LOOPBACK if asked.host in LOOPBACK else None
        nats = queue_server(asked, parts) or Path()  # a server is needed for routes alone
        door = parts["door"].Door(
            opened.places, identities, limits, listener, hosts, nats, opened.workers, opened.owner
        )
        await parts["door"].keep_open(door, signals, lambda: tell(listener))


async def _identities(
    said: tuple[Options, ClusterOptions],
    configuration: Any,
    namespace: str,
    models: ServedModels,
    parts: Parts,
    stack: AsyncExitStack,
) -> Any:
    """Who is who: everybody, those in a file, or those whom the cluster knows. Raises `CliError`."""
    asked, there = said
    if not there.token_review:
        return who_is_who(parts, asked, namespace, models.webhooks)
    if asked.tenants is not None:
        raise CliError("UsageError", "tenants are known by --tenants or by --token-review, not by both", BAD_INPUT)
    if models.webhooks is not None:
        message = f"{asked.models} has webhooks, whose keys all tenants would share: leave them out with --token-review"
        raise CliError("UsageError", message, BAD_INPUT)
    return await stack.enter_async_context(parts["cluster"].reviewed(configuration, tuple(there.audience)))


async def _context(there: ClusterOptions) -> Any:
    from headrace.shells.kube import kubeconfig  # noqa: PLC0415 - its libraries are an extra, which was looked for before

    try:
        if there.context is None and there.kubeconfig is None:
            return kubeconfig.pod_context()
        return await kubeconfig.load_context(there.kubeconfig, there.context)
    except kubeconfig.BadKubeconfig as error:
        raise CliError("BadKubeconfig", str(error), BAD_INPUT) from error


def _mounted(said: Sequence[str]) -> dict[str, Path]:
    found = {}
    for one in said:
        claim, equals, folder = one.partition("=")
        if not claim or not equals or not Path(folder).is_dir():
            raise CliError("UsageError", f"--mount must be CLAIM=FOLDER, and the folder there; not {one}", BAD_INPUT)
        found[claim] = Path(folder).absolute()
    return found
