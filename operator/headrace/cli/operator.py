"""`headrace operator`: the same decisions, carried out on a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from headrace.cli.exits import BAD_INPUT, FAILED, CliError
from headrace.core.election import LeaseTerms
from headrace.core.observed import Installation
from headrace.core.tracing.settings import Tracing, tracing_of
from headrace.tracing import Silent, open_tracer


def operator(options: Mapping[str, Any]) -> int:
    """Run the operator until it is told to stop. Raises `CliError` when it cannot begin."""
    shell = _shell()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    rest, tracing = dict(options), _tracing()
    place = {name: rest.pop(name) for name in ("worker_image", "default_output")}
    terms = _lease_terms(**{name: rest.pop(name) for name in ("lease_seconds", "give_up_seconds", "renew_seconds")})
    installation = Installation(**place, tracing=tracing)
    tracer = open_tracer("headrace-operator") if tracing is not None else Silent()
    set_up = shell.Options(installation=installation, lease_terms=terms, tracer=tracer, **rest)
    try:
        exit_code: int = asyncio.run(shell.run_operator(set_up))
    except shell.config.ConfigException as error:
        message = f"no credentials for a cluster: {error}. Name a file with --kubeconfig, or set KUBECONFIG"
        raise CliError("NoCredentials", message, FAILED) from error
    finally:
        tracer.close()
    return exit_code


def _lease_terms(**seconds: int) -> LeaseTerms:
    try:
        return LeaseTerms(**seconds)
    except ValueError as error:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in seconds)
        raise CliError("BadLeaseTerms", f"{error}. They are set by {flags}", BAD_INPUT) from error


def _tracing() -> Tracing | None:
    """What the environment says about traces. Raises `CliError` where that is wrong: who sets up an installation wants to know."""
    try:
        return tracing_of(os.environ)
    except ValueError as error:
        raise CliError("BadTracing", str(error), BAD_INPUT) from error


def _shell() -> Any:
    """The Kubernetes shell; its libraries are an extra that a laptop does without."""
    try:
        from headrace.shells.kube import operator as shell  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'headrace[operator]'"
        raise CliError("NotInstalled", message, FAILED) from error
    return shell
