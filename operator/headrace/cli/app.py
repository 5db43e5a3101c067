"""All commands with their options and help, on one page. What a command does is in its own module, imported when it is used."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.options import (
    DEFAULT_STATE,
    Context,
    Files,
    JsonOutput,
    Kubeconfig,
    Name,
    Namespace,
    ObjectOutput,
    Output,
    Quiet,
    StateFolder,
    Where,
)

app = typer.Typer(
    name="headrace",
    help="Batch GenAI work, on this machine or, with --context or --kubeconfig, in a cluster: the same objects, the same words.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Failed = Annotated[bool, typer.Option("--failed", help="Only what has failed: so it is without this word, too.")]


def _call(command: str, *arguments: Any, **options: Any) -> int:
    """Run `headrace.cli.<module>.<function>`; nothing heavy is imported before."""
    dispatch = import_module("headrace.cli.dispatch").dispatch
    exit_code: int = dispatch(command, *arguments, **options)
    return exit_code


@app.command()
def run(
    files: Files,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
    replace: Annotated[bool, typer.Option("--replace", help="Start over, without what there is of that name.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Of a schedule, run the tick that has come last.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Of a schedule, run each tick as it comes.")] = False,
) -> int:
    """Run the objects of some files to their end.

    Run the same command again to go on after an interruption. In a cluster this submits them and looks on: Ctrl-C ends that, and
    they go on. Exit code 0: complete, 1: failed, 2: bad input, 130: interrupted.
    """
    if once + watch + replace > 1:
        raise typer.BadParameter("only one of --once, --watch and --replace can be meant")
    if once or watch:
        word = "schedules.run_once" if once else "schedules.run_watch"
        return _call(word, Where(state_dir, namespace, context, kubeconfig), files, output, quiet=quiet)
    return _call(
        "run.run", Where(state_dir, namespace, context, kubeconfig), files, output, quiet=quiet, replace=replace
    )


@app.command()
def backfill(
    files: Files,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="The first moment, as in 2026-01-15T12:00.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="The first moment after it.")],
    most: Annotated[int, typer.Option("--max", min=1, max=10_000, help="Refuse more runs than this.")] = 100,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
) -> int:
    """Run the past ticks of schedules, the oldest first, each once and with its own window.

    Times without a zone are on the clock of the schedule. A tick that has had its run is passed over.
    """
    where = Where(state_dir, namespace, context, kubeconfig)
    return _call("schedules.backfill", where, files, (start, end), output, most=most, quiet=quiet)


schedule = typer.Typer(help="Look at schedules before they run.", no_args_is_help=True)
app.add_typer(schedule, name="schedule")


@schedule.command()
def preview(
    files: Files,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many runs of each to show.")] = 3,
    hours: Annotated[int, typer.Option("--hours", min=1, max=8784, help="How far to look for storms.")] = 24,
    namespace: Namespace = None,
    output: Output = JsonOutput.TEXT,
) -> int:
    """Show when schedules run next, and how many runs begin in the same minute: a storm is seen before it comes."""
    return _call("schedules.preview", Where(DEFAULT_STATE, namespace), files, output, count=count, hours=hours)


@app.command()
def plan(
    files: Files,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    no_read: Annotated[bool, typer.Option("--no-read", help="Do not read the input to count its records.")] = False,
) -> int:
    """Say what the objects of some files would take, and what would block them. Exit code 2 when something does."""
    return _call("plan.plan", Where(state_dir, namespace, context, kubeconfig), files, output, read=not no_read)


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="Kind of the objects, or KIND/NAME.")] = "InferenceBatch",
    name: Annotated[str | None, typer.Argument(help="Name of one object.")] = None,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Annotated[ObjectOutput, typer.Option("--output", "-o", help="Form of the answer.")] = ObjectOutput.TABLE,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
) -> int:
    """Show objects and how far they are."""
    where = Where(state_dir, namespace, context, kubeconfig)
    return _call("get.get", where, kind, name, output, all_namespaces=all_namespaces, watch=watch)


@app.command()
def results(
    name: Name,
    errors: Annotated[bool, typer.Option("--errors", help="The records that failed, with their errors.")] = False,
    all_records: Annotated[bool, typer.Option("--all", help="Succeeded and failed records.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many records, the first ones.")
    ] = None,
    worker_image: Annotated[
        str | None,
        typer.Option(
            envvar="HEADRACE_WORKER_IMAGE", help="Image that reads them in a cluster where the batch's Jobs are gone."
        ),
    ] = None,
    output: Output = JsonOutput.TEXT,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Show the results of a batch, in the order of its input. With -o json, one JSON line a record.

    In a cluster a small pod reads them, for as long as that takes.
    """
    where = Where(state_dir, namespace, context, kubeconfig, worker_image)
    return _call("results.results", where, name, output, errors=errors, everything=all_records, limit=limit)


@app.command()
def cancel(
    name: Name,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
) -> int:
    """End a batch now, and keep what is done. Cannot be taken back."""
    return _call("lifecycle.cancel", Where(state_dir, namespace, context, kubeconfig), name, output, quiet=quiet)


@app.command()
def suspend(
    name: Name,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
) -> int:
    """Put the work of a batch away until it is resumed."""
    return _call("lifecycle.suspend", Where(state_dir, namespace, context, kubeconfig), name, output, quiet=quiet)


@app.command()
def resume(
    name: Name,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
) -> int:
    """Go on with a suspended batch, on this machine right here if no other process runs it."""
    return _call("lifecycle.resume", Where(state_dir, namespace, context, kubeconfig), name, output, quiet=quiet)


@app.command()
def retry(
    name: Name,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
    quiet: Quiet = False,
    *,
    failed: Failed = True,  # noqa: ARG001 - nothing else is ever retried; the word says so
) -> int:
    """Try what has failed once more, with what is done kept: a batch, single records, or branches of a fan-out, which is joined again."""
    return _call("lifecycle.retry", Where(state_dir, namespace, context, kubeconfig), name, output, quiet=quiet)


@app.command()
def delete(
    name: Name,
    namespace: Namespace = None,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = JsonOutput.TEXT,
) -> int:
    """Delete a batch, and on this machine its output unless spec.output.uri says where that is."""
    return _call("lifecycle.delete", Where(state_dir, namespace, context, kubeconfig), name, output)


@app.command()
def crds(
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Write one file a kind into this folder.")
    ] = None,
    output: Output = JsonOutput.TEXT,
) -> int:
    """Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`."""
    return _call("crds.crds", output_dir, output)


@app.command()
def operator(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Credentials; by default the pod's own, or what KUBECONFIG says.")
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", envvar="HEADRACE_NAMESPACES", help="Serve only these; by default all."),
    ] = None,
    worker_image: Annotated[
        str, typer.Option(envvar="HEADRACE_WORKER_IMAGE", help="Image of the worker pods.")
    ] = "headrace-worker",
    default_output: Annotated[
        str | None,
        typer.Option(
            envvar="HEADRACE_DEFAULT_OUTPUT", help="URI below which a batch without spec.output.uri gets its folder."
        ),
    ] = None,
    lease_namespace: Annotated[
        str,
        typer.Option(envvar="HEADRACE_LEASE_NAMESPACE", help="Namespace of the Lease by which replicas take turns."),
    ] = "headrace-system",
    lease_seconds: Annotated[
        int,
        typer.Option(envvar="HEADRACE_LEASE_SECONDS", min=1, help="How long a silent leader stays leader."),
    ] = 15,
    give_up_seconds: Annotated[
        int,
        typer.Option(envvar="HEADRACE_GIVE_UP_SECONDS", min=1, help="A leader that could not renew for so long stops."),
    ] = 10,
    renew_seconds: Annotated[
        int, typer.Option(envvar="HEADRACE_RENEW_SECONDS", min=1, help="How often a leader renews its Lease.")
    ] = 2,
    host: Annotated[str, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(help="Port of /healthz, /readyz and /metrics.")] = 8080,
) -> int:
    """Run the operator against a Kubernetes API server, until it is told to stop."""
    options = {
        "kubeconfig": kubeconfig,
        "namespaces": tuple(namespace or ()),
        "worker_image": worker_image,
        "default_output": default_output,
        "lease_namespace": lease_namespace,
        "lease_seconds": lease_seconds,
        "give_up_seconds": give_up_seconds,
        "renew_seconds": renew_seconds,
        "host": host,
        "port": port,
    }
    return _call("operator.operator", options)


@app.command()
def gateway(
    models: Annotated[
        Path,
        typer.Option(
            "--models", metavar="FILE", envvar="HEADRACE_MODELS", help="YAML that says which models are served."
        ),
    ],
    local: Annotated[bool, typer.Option("--local", help="Run the batches on this machine.")] = False,
    state_dir: StateFolder = DEFAULT_STATE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace of the batches.")] = None,
    tenants: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="HEADRACE_TENANTS",
            help="YAML that says who may use it, by which keys; without it whoever reaches it may.",
        ),
    ] = None,
    token_review: Annotated[
        bool,
        typer.Option(
            "--token-review",
            help="With a cluster: let in who has a token of it, to the namespaces where that user may create batches.",
        ),
    ] = False,
    audience: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="With --token-review: tokens must be meant for this, not for the API server."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any.")] = 8080,
    max_runs: Annotated[
        int, typer.Option(min=1, max=64, help="Batches that are worked on at a time on this machine.")
    ] = 2,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="Largest file that may be uploaded.")] = 2 * 2**30,
    files: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            envvar="HEADRACE_FILES",
            help="With a cluster: where uploads are kept, s3://, gs:// or az://, or claim://NAME/PATH of a claim mounted here.",
        ),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM=FOLDER", help="With a cluster: where a claim of the namespace is mounted here."),
    ] = None,
    worker_image: Annotated[
        str | None,
        typer.Option(
            envvar="HEADRACE_WORKER_IMAGE", help="With a cluster: image of the worker pods of routes with a warmPool."
        ),
    ] = None,
    pool_owner: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIGMAP",
            envvar="HEADRACE_POOL_OWNER",
            help="With a cluster: those pods are deleted with this ConfigMap of the namespace.",
        ),
    ] = None,
    nats: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="HEADRACE_NATS",
            help="NATS server, with JetStream, for single requests; without it --local starts one where models have routes.",
        ),
    ] = None,
    nats_credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="HEADRACE_NATS_CREDENTIALS",
            help="Files that open it: token, or username and password, or nats.creds; ca.crt; tls.crt and tls.key.",
        ),
    ] = None,
) -> int:
    """Serve single requests, and OpenAI's Files and Batches, until told to stop; what is not done then goes on with the next start.

    With --local batches run on this machine; in a pod, or with --context or --kubeconfig, they are the InferenceBatches of that cluster.
    """
    there = context is not None or kubeconfig is not None
    if local == (there or (not local and "KUBERNETES_SERVICE_HOST" in os.environ)):
        raise typer.BadParameter("say either --local, or with --context or --kubeconfig which cluster has the batches")
    options = {
        "models": models,
        "namespace": namespace,
        "host": host,
        "port": port,
        "max_file_bytes": max_file_bytes,
        "nats": nats,
        "nats_credentials": nats_credentials,
        "tenants": tenants,
    }
    if local:
        if files is not None or mount:
            raise typer.BadParameter("--files and --mount are for a cluster: on this machine files are in --state-dir")
        if token_review or audience:
            raise typer.BadParameter("--token-review is for a cluster: on this machine there is --tenants")
        return _call("gateway.gateway", options, {"state_dir": state_dir, "max_runs": max_runs})
    cluster = {
        "context": context,
        "kubeconfig": kubeconfig,
        "files": files,
        "mount": mount or (),
        "token_review": token_review,
        "audience": audience or (),
        "worker_image": worker_image,
        "pool_owner": pool_owner,
    }
    return _call("gatewaythere.gateway", options, cluster)


@app.command()
def key() -> int:
    """Make a key for a tenant of a gateway, and print it with the hash of it that its file is to have."""
    return _call("key.key")


dlq = typer.Typer(help="Requests that a gateway could not get answered.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(dlq, name="dlq")
GatewayUrl = Annotated[
    str,
    typer.Option(
        "--gateway",
        metavar="URL",
        envvar="HEADRACE_GATEWAY",
        help="Base URL of the gateway; its key is in HEADRACE_API_KEY.",
    ),
]
OfRoute = Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only those of a route.")]
DEFAULT_GATEWAY = "http://127.0.0.1:8080/v1"


@dlq.command("list")
def dlq_list(gateway: GatewayUrl = DEFAULT_GATEWAY, route: OfRoute = None, output: Output = JsonOutput.TEXT) -> int:
    """List them, with the reason of each."""
    return _call("dlq.list_letters", gateway, route, output)


@dlq.command("replay")
def dlq_replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which; else say --all.")] = None,
    gateway: GatewayUrl = DEFAULT_GATEWAY,
    route: OfRoute = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, or all of --route.")] = False,
    output: Output = JsonOutput.TEXT,
) -> int:
    """Ask them again, as new requests in the same words."""
    if bool(ids) == every or (ids and route is not None):
        raise typer.BadParameter("say either ids, or --all, perhaps with --route")
    return _call("dlq.replay", gateway, ids or (), route, output)


@app.command()
def version(output: Output = JsonOutput.TEXT) -> int:
    """Print the version."""
    return _call("version.version", output)
