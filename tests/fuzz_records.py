"""Mutate record files by the hundred thousand: `PYTHONPATH=operator:worker-image:tests python tests/fuzz_records.py --files 100000`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from record_mutations import fuzz

MEMORY = Path("/dev/shm")
"""A disk would have to sync each of the files."""


def main() -> None:
    """Print the counts; end with a traceback at the first file that is neither accepted nor refused with a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        counts = fuzz(chosen.files, chosen.seed, Path(folder) / "batch")
    for what, count in sorted(counts.items()):
        print(f"{what:25} {count:8,}")
    print(f"{sum(counts.values()):,} files, none crashed, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
