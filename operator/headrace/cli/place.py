"""The place, the namespace and the objects that a command line names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headrace.api.kinds import kind_named
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.here import Here
from headrace.cli.options import Where
from headrace.cli.target import Ref, Target
from headrace.shells.manifests import Manifests, check_namespace

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@contextmanager
def open_target(where: Where) -> Iterator[Target]:
    """The place that a command is about. Raises `CliError`, `StateError`, `ManifestError` when it cannot be used."""
    if where.namespace is not None:
        check_namespace(where.namespace)
    if where.in_cluster:
        with _cluster_module().open_cluster(where) as there:
            yield there
    else:
        yield Here(where)


def _cluster_module() -> Any:
    """What speaks to clusters; its libraries are an extra that a laptop does without."""
    try:
        from headrace.cli import there  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'headrace[operator]'"
        raise CliError("NotInstalled", message) from error
    return there


def named_batch(target: Target, name: str) -> Ref:
    """Which batch a name means, also as KIND/NAME, whether it exists or not."""
    kind, _, rest = name.rpartition("/")
    if (kind and kind_named(kind) is None) or not _NAME.fullmatch(rest):
        raise CliError("UsageError", f'"{name}" is not the name of a batch', BAD_INPUT)
    return Ref(target.namespace, rest)


def load_manifests(target: Target, files: Sequence[str]) -> Manifests:
    """The objects in some files. Raises `ManifestError`, and `CliError` when there are none."""
    manifests = target.manifests(files)
    if not manifests.batches and not manifests.schedules and not manifests.config_maps:
        raise CliError("NoObjects", f"there is no object in {', '.join(files)}", BAD_INPUT)
    return manifests
