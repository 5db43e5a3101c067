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
from typing import NamedTuple

HERE = Path(__file__).parent


class Variant(NamedTuple):
    """A kind of CPU: the flags by which Linux knows it, and what the compiler is told."""

    needs: frozenset[str]
    options: tuple[str, ...]


_V3 = frozenset({"avx2", "fma", "f16c", "bmi2"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
VARIANTS = {
    "amx": Variant(
        _V4 | {"avx512_bf16", "amx_tile", "amx_bf16"},
        ("-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    ),
    "avx512-bf16": Variant(_V4 | {"avx512_bf16"}, ("-march=x86-64-v4", "-mavx512bf16")),
    "avx512": Variant(_V4, ("-march=x86-64-v4",)),
    "avx2": Variant(_V3, ("-march=x86-64-v3",)),
}
"""The best first."""
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


def fitting(flags: frozenset[str]) -> list[Path]:
    """The libraries that were compiled for a CPU with these flags, the best first."""
    fit = (library(name) for name, variant in VARIANTS.items() if variant.needs <= flags)
    return [path for path in fit if path.exists()]


def build() -> list[Path]:
    """The libraries, compiled where a source is newer; none where there is no compiler for them."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or sys.platform != "linux" or platform.machine() != "x86_64":
        return []
    return [_compiled(compiler, name, variant) for name, variant in VARIANTS.items()]


def _compiled(compiler: str, name: str, variant: Variant) -> Path:
    target, sources = library(name), [HERE / "kernels.cpp", *HERE.glob("*.h")]
    if target.exists() and target.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return target
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        unit, linked = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        _run(compiler, *_FLAGS, *variant.options, "-c", str(sources[0]), "-o", str(unit))
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
