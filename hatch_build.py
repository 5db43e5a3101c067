"""Hook of the build: compiles the kernels of the worker where there is a compiler; the package is complete without them."""

from __future__ import annotations

import runpy
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "worker-image/headrace_worker/engines/transformers/native"


class CustomBuildHook(BuildHookInterface):
    """Puts the libraries beside their source, and into the wheel."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Before files are collected, for a wheel and for an editable installation."""
        libraries = runpy.run_path(f"{self.root}/{NATIVE}/build.py")["build"]()
        if libraries:
            build_data["artifacts"] += [f"{NATIVE}/{path.name}" for path in libraries]
            build_data["pure_python"], build_data["tag"] = False, "py3-none-linux_x86_64"
