"""vLLM's CPU build as a contender of tests/bench/worker.py: runs in an environment of its own, one line of JSON a round.

    VLLM_PYTHON tests/bench/vllm_peer.py JOB.json

The job says which model (a folder), number format, threads, settings (vLLM's engine arguments) and the prompts as token ids, each with
its own number of tokens to generate. For each line on standard input it answers all of them and says how long that took and what the
tokens were. Nothing of Headrace is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def load(job: dict[str, Any]) -> tuple[Any, list[Any], list[Any]]:
    """The engine, the prompts and how each is to be answered."""
    cpus = sorted(os.sched_getaffinity(0))[: job["threads"]]
    os.environ |= {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process: one less that wants a CPU
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, SamplingParams  # noqa: PLC0415  # reads the environment

    engine = LLM(
        model=job["model"],
        dtype=job["dtype"],
        **job["settings"],
        max_model_len=job["max_model_len"],
        enable_prefix_caching=False,
        skip_tokenizer_init=job["skip_tokenizer"],
    )
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    wanted = [
        SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=not job["skip_tokenizer"])
        for count in job["max_tokens"]
    ]
    return engine, prompts, wanted


def main() -> int:
    """Load, then a round for each line."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes where their complaints go
    engine, prompts, wanted = load(json.loads(Path(sys.argv[1]).read_text()))
    engine.generate(prompts[:8], wanted[:8], use_tqdm=False)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for _ in sys.stdin:
        began, own = time.perf_counter(), time.process_time()
        answers = engine.generate(prompts, wanted, use_tqdm=False)
        seconds, cpu = time.perf_counter() - began, time.process_time() - own
        tokens = [list(answer.outputs[0].token_ids) for answer in answers]
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "tokens": tokens}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
