"""The state folder and the namespace that a command works with."""

from __future__ import annotations

import re

from headrace.api.kinds import kind_named
from headrace.cli.app import Where
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.shells.local.state import BatchFolder, StateDir
from headrace.shells.manifests import Manifests, check_namespace, load, on_this_machine

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def open_state(where: Where) -> StateDir:
    """The state folder. Raises `StateError`, `ManifestError` when folder or namespace cannot be used."""
    if where.namespace is not None:
        check_namespace(where.namespace)
    return StateDir(where.state_dir)


def namespace_of(where: Where) -> str:
    """The namespace of objects that are named on the command line."""
    return where.namespace or "default"


def find_batch(where: Where, name: str) -> tuple[StateDir, BatchFolder]:
    """The batch of that name, also as KIND/NAME, whether it exists or not."""
    state = open_state(where)
    kind, _, rest = name.rpartition("/")
    if (kind and kind_named(kind) is None) or not _NAME.fullmatch(rest):
        raise CliError("UsageError", f'"{name}" is not the name of a batch', BAD_INPUT)
    return state, state.batch(namespace_of(where), rest)


def load_manifests(where: Where, files: list[str]) -> Manifests:
    """The objects in some files, for this machine. Raises `ManifestError`, and `CliError` when there are none to run."""
    manifests = load(files, where.namespace, on_this_machine)
    if not manifests.batches and not manifests.config_maps:
        raise CliError("NoObjects", f"there is no object in {', '.join(files)}", BAD_INPUT)
    return manifests
