"""Options that commands share, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class JsonOutput(StrEnum):
    """Output of commands that have one form for people and one for programs."""

    TEXT = "text"
    JSON = "json"


class ObjectOutput(StrEnum):
    """Output of `get`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Where:
    """Which objects a command is about."""

    state_dir: Path
    namespace: str | None
    """None: that of the context, or `default`; for a manifest what it says itself."""
    context: str | None = None
    kubeconfig: Path | None = None
    worker_image: str | None = None
    """For a batch in a cluster of whose pods no trace is left."""

    @property
    def in_cluster(self) -> bool:
        """Whether it is about a cluster, and not about this machine."""
        return self.context is not None or self.kubeconfig is not None


Files = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="FILE", help="YAML or JSON, a folder of them, or - for standard input."),
]


Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace of the objects.")]


StateFolder = Annotated[
    Path, typer.Option("--state-dir", envvar="HEADRACE_STATE_DIR", help="Folder that keeps objects and outputs.")
]


Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Work with the cluster of that context, not with this machine."),
]


Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Work with the cluster of that file, not with this machine."),
]


Output = Annotated[JsonOutput, typer.Option("--output", "-o", help="Form of the answer.")]


Name = Annotated[str, typer.Argument(help="Name of the InferenceBatch.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DEFAULT_STATE = Path(".headrace")
