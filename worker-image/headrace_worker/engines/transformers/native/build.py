"""Compiles `kernels.cpp`, ahead of time only: when the package or the image is built. Knows nothing of the rest of Headrace.

    python worker-image/headrace_worker/engines/transformers/native/build.py

Without a compiler, or on another kind of machine, nothing is made and the engine uses torch's own kernels.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
VARIANTS = {"avx512": "-march=x86-64-v4", "avx2": "-march=x86-64-v3"}
"""Named as torch names what a CPU can, in small letters."""
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-Wno-psabi",
    "-mprefer-vector-width=512",
)


def library(variant: str) -> Path:
    """Where the library for one kind of CPU is."""
    return HERE / f"kernels-{variant}.so"


def build() -> list[Path]:
    """The libraries, compiled where the source is newer; none where there is no compiler for them."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or sys.platform != "linux" or platform.machine() != "x86_64":
        return []
    return [_compiled(compiler, variant) for variant in VARIANTS]


def _compiled(compiler: str, variant: str) -> Path:
    target, source = library(variant), HERE / "kernels.cpp"
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        unit, linked = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        _run(compiler, *_FLAGS, VARIANTS[variant], "-c", str(source), "-o", str(unit))
        # Linked without -fopenmp: it must find the OpenMP that torch has brought along. A second one would have threads of its own, and
        # threads that wait for each other take the CPUs from those that work.
        _run(compiler, "-shared", str(unit), "-o", str(linked))
        linked.replace(target)
    return target


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603  # a compiler that the one who builds has chosen


if __name__ == "__main__":
    for path in build():
        print(path)
