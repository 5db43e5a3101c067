"""`headrace operator`: the same decisions, carried out on a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from headrace.cli.exits import FAILED, CliError
from headrace.core.observed import Installation


def operator(options: Mapping[str, Any]) -> int:
    """Run the operator until it is told to stop. Raises `CliError` when it cannot begin."""
    shell = _shell()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    place = {"worker_image", "default_output"}
    installation = Installation(**{name: options[name] for name in place})
    rest = {name: value for name, value in options.items() if name not in place}
    try:
        exit_code: int = asyncio.run(shell.run_operator(shell.Options(installation=installation, **rest)))
    except shell.config.ConfigException as error:
        message = f"no credentials for a cluster: {error}. Name a file with --kubeconfig, or set KUBECONFIG"
        raise CliError("NoCredentials", message, FAILED) from error
    return exit_code


def _shell() -> Any:
    """The Kubernetes shell; its libraries are an extra that a laptop does without."""
    try:
        from headrace.shells.kube import operator as shell  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'headrace[operator]'"
        raise CliError("NotInstalled", message, FAILED) from error
    return shell
