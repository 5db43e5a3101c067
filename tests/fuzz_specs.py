"""Mutate specs by the hundred thousand: `PYTHONPATH=operator:tests python tests/fuzz_specs.py --objects 100000`."""

from __future__ import annotations

import argparse
import time

from spec_mutations import fuzz


def main() -> None:
    """Print the counts; end with a traceback at the first object that is neither accepted nor refused with a field."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    counts = fuzz(chosen.objects, chosen.seed)
    for what, count in sorted(counts.items()):
        print(f"{what:25} {count:8,}")
    print(f"{sum(counts.values()):,} objects, none crashed, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
