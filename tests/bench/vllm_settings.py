"""vLLM's best settings on this machine, for tests/bench/worker.py: each is tried, and what was best is kept in vllm_settings.json.

    python tests/bench/vllm_settings.py --vllm-python PATH [--model smollm2] [--dtype bfloat16] [--records 256] [--rounds 3]

The settings are tried one after the other: of each all values, beside the best ones found so far of the others. The records and answers
are those of the bench, and so is the number of threads, which are bound to one CPU each. The row of this model and number format is
replaced; it says on which processor it was made.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from bench.worker_peers import SETTINGS_FILE, USUAL_SETTINGS, VllmSettings, processor, settings_rows
from bench.worker_subject import MODELS, Settings, Subject, subject

VALUES: VllmSettings = {
    "max_num_seqs": [32, 128, 256],
    "max_num_batched_tokens": [8192],
    "enable_chunked_prefill": [False],
    "async_scheduling": [False],
    "enforce_eager": [False],
}
"""What is tried beside the usual values. Compiling comes last, for it takes minutes."""

Measure = Callable[[VllmSettings], float]


def search(measure: Measure) -> tuple[VllmSettings, dict[str, float]]:
    """The best settings, and the seconds of all that were tried."""
    best, tried = {**USUAL_SETTINGS, "enforce_eager": True}, dict[str, float]()

    def seconds(settings: VllmSettings) -> float:
        name = json.dumps(settings)
        tried[name] = measure(settings)
        print(f"  {tried[name]:.2f} s: {name}", file=sys.stderr)
        return tried[name]

    least = seconds(best)
    for name, values in VALUES.items():
        for value in values:
            candidate = {**best, name: value}
            if (found := seconds(candidate)) < least:
                best, least = candidate, found
    return best, tried


def by_vllm(it: Subject, python: Path, rounds: int, folder: Path) -> Measure:
    """Measures settings by the shortest of so many rounds: what else the machine does makes one longer, never shorter.

    What vLLM cannot do takes for ever.
    """

    def measure(settings: VllmSettings) -> float:
        try:
            peer = it.start_vllm(python, settings, folder)
        except RuntimeError as error:
            print(f"  {error}", file=sys.stderr)
            return float("inf")
        try:
            return min(peer.round().seconds for _ in range(rounds))
        finally:
            peer.close()

    return measure


def keep(model: str, dtype: str, best: VllmSettings, tried: dict[str, float]) -> None:
    """Replace the row of this model and number format."""
    row = {"model": model, "dtype": dtype, "processor": processor(), "threads": torch.get_num_threads()}
    found = {name: round(seconds, 2) for name, seconds in tried.items() if seconds != float("inf")}
    others = [other for other in settings_rows() if (other["model"], other["dtype"]) != (model, dtype)]
    rows = sorted([*others, {**row, "settings": best, "seconds": found}], key=lambda it: (it["model"], it["dtype"]))
    SETTINGS_FILE.write_text(json.dumps(rows, indent=2) + "\n")


def main() -> int:
    """Try, and keep what was best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", type=Path, required=True, help="of an environment with vLLM's CPU build")
    parser.add_argument("--model", choices=MODELS, default="random")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    settings = Settings(given.model, given.records, 64, given.rounds, given.dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        best, tried = search(by_vllm(subject(settings, folder), given.vllm_python, given.rounds, folder))
    keep(given.model, given.dtype, best, tried)
    print(f"{given.model}, {given.dtype}: {json.dumps(best)} of {len(tried)} that were tried")
    return 0


if __name__ == "__main__":
    sys.exit(main())
