"""Generated tokens a second of the engine `transformers`, beside what others do with the same model and records.

    python tests/bench/worker.py [--quick] [--model smollm2] [--dtype bfloat16] [--peers static,vllm] [--vllm-python PATH]
                                 [--batch-size 64] [--rounds 3] [--threads N] [--json FILE]

All contenders answer the same records greedily, each record with its own number of tokens, with the same number format and threads.
They take turns, so that a busy moment of the machine hits all of them, and every answer is compared. Contenders:

- headrace: the engine behind the worker's own batcher, from prepared records to response bodies
- static: `generate` on padded batches in order of arrival; a batch runs until its longest answer is there
- continuous: Hugging Face's continuous batching, tuned
- one-by-one: `generate` for single records, on a part of them
- static-packed, continuous-packed, one-by-one-packed: the same, with the linear layers packed as headrace's are, so that what is
  left is the batching and the attention (CPU only)
- vllm: vLLM's CPU build, in the environment whose Python `--vllm-python` names, with the settings that were best for it on this kind of
  machine (tests/bench/vllm_settings.py finds them); left out without one

Beside them stands what the machine could do at best: the model's arithmetic at the rate of a packed layer, or the reading of its weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from bench.worker_peers import (
    Roofline,
    Tokens,
    best_vllm_settings,
    by_continuous_batching,
    by_generate,
)
from bench.worker_subject import MODELS, PEERS, Contender, Settings, Subject, subject
from headrace.api.base import JsonObject
from headrace.api.worker import Env
from headrace_worker.engines.transformers.packed import pack_linear_layers

ONE_BY_ONE_SHARE = 16
"""One record in so many is also answered alone."""
STATIC_BATCH = 32


def contenders(it: Subject, settings: Settings, folder: Path) -> list[Contender]:
    """All contenders that were asked for and are there; each has had a few records to warm up."""
    plain, packed = it.model(), it.model()
    can_pack = it.device.type == "cpu" and pack_linear_layers(packed) > 0
    entrants = [Contender("headrace", lambda: (it.by_headrace(), 0.0))]
    for name in (name for name in PEERS if name in settings.peers):
        if name == "vllm":
            entrants += _vllm(it, settings, folder)
            continue
        way = name.removesuffix("-packed")
        if way == name or can_pack:
            entrants.append(_by_hugging_face(it, name, way, plain if way == name else packed))
    for model in (plain, packed):
        by_generate(model, it.works[:4], 4)
    return entrants


def _by_hugging_face(it: Subject, name: str, way: str, model: Any) -> Contender:
    few = it.works[::ONE_BY_ONE_SHARE]
    ways: dict[str, Callable[[], Tokens]] = {
        "static": lambda: by_generate(model, it.works, STATIC_BATCH),
        "continuous": lambda: by_continuous_batching(model, it.works),
        "one-by-one": lambda: by_generate(model, few, 1),
    }
    return Contender(name, lambda: (it.texts(ways[way]()), 0.0))


def _vllm(it: Subject, settings: Settings, folder: Path) -> list[Contender]:
    if settings.vllm_python is None:
        print("  vllm is left out: --vllm-python does not say where it is", file=sys.stderr)
        return []
    best = best_vllm_settings(settings.model, settings.dtype)
    print(f"  vllm has the settings {json.dumps(best)}", file=sys.stderr)
    try:
        return [it.vllm(settings.vllm_python, best, folder)]
    except RuntimeError as error:
        print(f"  vllm is left out: {error}", file=sys.stderr)
        return []


def measure(settings: Settings, folder: Path) -> JsonObject:
    """All rounds; what the command prints."""
    it = subject(settings, folder)
    entrants = contenders(it, settings, folder)
    for _ in range(settings.rounds):
        for entrant in entrants:
            entrant.take_turn()
    reference = entrants[0]
    stats = it.engine.stats
    prompts, generated = sum(work.tokens for work in it.works), sum(it.tokens.values())
    best = Roofline.of(it.model(), prompts + generated, generated, settings.batch_size)
    return {
        "model": settings.model,
        "records": settings.records,
        "prompt_tokens": prompts,
        "completion_tokens": generated,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "device": it.device.type,
        "threads": torch.get_num_threads(),
        "batch_fill": stats.batched_records / (stats.batches * settings.batch_size),
        "cpus": os.cpu_count(),
        "gflops_per_second": round(best.flops_per_second / 1e9),
        "gigabytes_per_second": round(best.bytes_per_second / 1e9, 1),
        "roofline_seconds": round(best.seconds, 2),
        "of_roofline": round(best.seconds / statistics.median(reference.seconds), 3),
        "host_share": round(it.host_seconds / sum(reference.seconds), 4),
        "contenders": {entrant.name: _figures(entrant, reference, it.tokens) for entrant in entrants},
    }


def _figures(entrant: Contender, reference: Contender, tokens: dict[str, int]) -> JsonObject:
    count = sum(tokens[name] for name in entrant.answers)
    speed, own = count / statistics.median(entrant.seconds), sum(tokens.values()) / statistics.median(reference.seconds)
    equal = sum(text.strip() == reference.answers[name].strip() for name, text in entrant.answers.items())
    return {
        "tokens_per_second": round(speed, 1),
        "headrace_is_faster_by": round(own / speed, 2),
        "records": len(entrant.answers),
        "equal_to_headrace": equal,
        "seconds": entrant.seconds,
        "cpu_seconds": entrant.cpu_seconds,
        "cpus_used_by_others": entrant.cpus_used_by_others,
    }


def show(figures: JsonObject) -> None:
    """Print a line a contender."""
    print(
        "{model}: {records} records, {prompt_tokens:,} prompt and {completion_tokens:,} generated tokens, {dtype} on {device}, "
        "batches of {batch_size}, {threads} threads of {cpus} CPUs, batch fill {batch_fill:.1%}, host work {host_share:.1%}\n"
        "at best {roofline_seconds} s by {gflops_per_second:,} GFLOP/s and {gigabytes_per_second} GB/s; "
        "headrace reaches {of_roofline:.0%} of that".format(**figures)
    )
    for name, row in figures["contenders"].items():
        print(
            f"{name:17} {row['tokens_per_second']:9,.1f} tokens/s  headrace x{row['headrace_is_faster_by']:<5}  "
            f"equal {row['equal_to_headrace']}/{row['records']}  median of {row['seconds']} s, "
            f"CPU {row['cpu_seconds']} s, others {row['cpus_used_by_others']} CPUs"
        )


def main() -> int:
    """Measure; the exit code is 1 when float32 answers differ, or when plain padded batches are faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="random")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: what the cgroup allows")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas; of %(default)s")
    parser.add_argument("--vllm-python", type=Path, help="the Python of an environment with vLLM's CPU build")
    parser.add_argument("--quick", action="store_true", help="48 records, batches of 16, one round")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if given.quick:
        given.records, given.batch_size, given.rounds = 48, 16, 1
    if given.threads:
        os.environ[Env.THREADS] = str(given.threads)
    peers = tuple(filter(None, given.peers.split(",")))
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: there is no {', '.join(sorted(unknown))}, only {', '.join(PEERS)}")
    sizes = (given.records, given.batch_size, given.rounds)
    settings = Settings(given.model, *sizes, given.dtype, peers, given.vllm_python)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(settings, Path(folder))
    show(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    rows = figures["contenders"].values()
    equal = settings.dtype != "float32" or all(row["equal_to_headrace"] == row["records"] for row in rows)
    return int(not equal or min(row["headrace_is_faster_by"] for row in rows) < 1)


if __name__ == "__main__":
    sys.exit(main())
