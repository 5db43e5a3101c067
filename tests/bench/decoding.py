"""Images for a classifier: fetched from memory, decoded and resized in threads, as the worker does it, and in processes.

What is compared is images a second with as many workers as there are CPUs, in turns, the best of several rounds each; and the CPU
milliseconds of an image, which a busy machine changes little. Pillow and numpy let go of the interpreter's lock while they work on pixels;
what threads lose to it is what they are slower here. Processes pay for another interpreter with its libraries each, and for files and
pixels that are copied from one to the other. Run it with `python tests/bench/decoding.py`.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ViTImageProcessor

sys.path.insert(0, str(Path(__file__).parent.parent))

from headrace.api.model import Model
from headrace_worker.engines.transformers.classifiers import image_reader
from headrace_worker.engines.transformers.source import find

CHUNK = 4
"""Images that a process is sent at once; more of them would be late for the batch that they belong to."""
_reader: Any = None


def prepare(folder: str) -> None:
    """What a process does once."""
    global _reader  # noqa: PLW0603 - there is nothing else that a process keeps between its calls
    torch.set_num_threads(1)
    model = Model.parse({"name": "m", "task": "image-classification", "source": {"path": folder}})
    _reader = image_reader(model, find(model))


def read(data: bytes) -> Any:
    """One image, as the classifier takes it; as an array, which is sent at the price of its bytes."""
    return _reader(data).numpy()


def resident_mib() -> float:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def photos(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEG files that are as hard to decode as photos: smooth, with some noise."""
    rng = np.random.default_rng(7)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse, dtype=np.int16) + rng.integers(-12, 12, (size[1], size[0], 3), dtype=np.int16)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def cpu_seconds() -> float:
    """Of this process and those that it has started, which still run."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    stats = [Path("/proc", pid, "stat").read_text().rpartition(")")[2].split() for pid in children]
    ticks = sum(int(stat[11]) + int(stat[12]) for stat in stats)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


class Best:
    """The best of several rounds."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.milliseconds = float("inf")

    def measure(self, run: Callable[[], int]) -> None:
        """One round."""
        began, worked = time.perf_counter(), cpu_seconds()
        images = run()
        self.rate = max(self.rate, images / (time.perf_counter() - began))
        self.milliseconds = min(self.milliseconds, 1000 * (cpu_seconds() - worked) / images)

    def __str__(self) -> str:
        return f"{self.rate:.0f}/s ({self.milliseconds:.1f} CPU ms)"


def on(pool: Executor, files: Sequence[bytes]) -> int:
    """All images once through a pool."""
    return sum(1 for _ in pool.map(read, files, chunksize=CHUNK))


def one_by_one(files: Sequence[bytes]) -> int:
    """All images once, in this thread."""
    return sum(1 for _ in map(read, files))


def main() -> int:
    """Print images a second, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads, and processes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
        Path(folder, "config.json").write_text('{"model_type": "vit"}')
        prepare(folder)
        spawn = multiprocessing.get_context("spawn")
        with (
            ThreadPoolExecutor(given.workers) as threads,
            ProcessPoolExecutor(given.workers, spawn, prepare, (folder,)) as processes,
        ):
            for size in ((640, 480), (1920, 1440)):
                files = photos(given.images, size)
                on(threads, files), on(processes, files)
                best = {"one by one": Best(), "threads": Best(), "processes": Best()}
                for _ in range(given.rounds):
                    best["one by one"].measure(partial(one_by_one, files))
                    best["threads"].measure(partial(on, threads, files))
                    best["processes"].measure(partial(on, processes, files))
                shown = ", ".join(f"{name} {value}" for name, value in best.items())
                ratio = best["threads"].rate / best["processes"].rate
                print(f"{size[0]} x {size[1]}, {given.workers} workers: {shown}; threads/processes {ratio:.2f}")
            print(f"a process takes {processes.submit(resident_mib).result():.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
