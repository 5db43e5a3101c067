"""Generated tokens a second of the engine `vllm`, beside vLLM's own `LLM.generate`. To be run where vLLM is installed.

    python tests/bench/vllm_engine.py [--records 256] [--batch-size 64] [--rounds 3] [--dtype float32] [--eager] [--tiny] [--json FILE]

One vLLM is loaded, and the contenders take turns with it; answers are greedy, each with its own `max_tokens`, and compared. Prefixes are
not cached, or the second one would find the prompts of the first. No engine's start is in these times: not that of vLLM, which is there
already, and not that of headrace's engine, which reads the tokeniser that `LLM` has read before.

- headrace: a whole shard, from the input file to the commit: records read, checked, batched, answered, journaled and counted
- generate: `LLM.generate` with all prompts at once, as token ids; the answers are thrown away

The bar is 0.97. Also told are the CPU seconds of this process, which on a GPU has a core of its own beside vLLM's: what the records cost
it. With `--tiny` the model is so small that hardly anything else is left; that is no measure of serving, but of the worst that can be.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson

from headrace.api.worker import PlanReport, WorkerConfig
from headrace_worker import engines
from headrace_worker.drain import Drain
from headrace_worker.engines.base import Engine
from headrace_worker.engines.vllm import VllmEngine, library
from headrace_worker.manifest import read_header, read_shard_entry
from headrace_worker.planning.plan import plan
from headrace_worker.progress import Live
from headrace_worker.recorder import Surroundings
from headrace_worker.shard import run_shard
from headrace_worker.stores.local import LocalStore
from tiny_models import save_llama
from worker_rig import CREATED, Folder

BAR = 0.97
Answers = dict[str, str]
LLAMA = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
TINY = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@dataclass
class Turn:
    """What one turn took."""

    seconds: float
    cpu_seconds: float
    """Of this process."""


class Shared:
    """A vLLM that is not ended when an engine is."""

    def __init__(self, core: library.Core) -> None:
        self._core = core
        self.add, self.step, self.abort = core.add, core.step, core.abort
        self.max_num_seqs, self.max_num_batched_tokens = core.max_num_seqs, core.max_num_batched_tokens

    def close(self) -> None:
        """It goes on."""


class Subject:
    """One vLLM, and the records."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        shape = {"vocab_size": 8192, "max_position_embeddings": 1024, "tie_word_embeddings": True}
        save_llama(folder / "model", **(TINY if given.tiny else LLAMA), **shape, initializer_range=0.08)
        self._given, self._folder, self._turns = given, folder, 0
        self.tokens = 0
        """Generated in one turn."""
        self.started = 0.0, 0.0
        """What the start of headrace's engine took in this turn: seconds, and those of CPU."""
        rng = random.Random(1)
        self.prompts = [[rng.randrange(1, 8192) for _ in range(lognormal(rng, 16, 256))] for _ in range(given.records)]
        self.lengths = [lognormal(rng, 8, 128) for _ in self.prompts]
        library.known_arguments()  # sets the environment as a worker does
        self._llm = self._load()
        self._core = Shared(library.running(self._llm.llm_engine, pooling=False))

    def _load(self) -> Any:
        from vllm import LLM  # noqa: PLC0415

        return LLM(
            model=str(self._folder / "model"),
            dtype=self._given.dtype,
            max_num_seqs=self._given.batch_size,
            enable_prefix_caching=False,
            enforce_eager=self._given.eager,
            max_model_len=1024,
        )

    def by_generate(self) -> Answers:
        """The loop of vLLM itself."""
        from vllm import SamplingParams  # noqa: PLC0415

        parameters = [SamplingParams(temperature=0, max_tokens=most) for most in self.lengths]
        prompts = [{"prompt_token_ids": ids} for ids in self.prompts]
        with self.timed():
            outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        self.tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        return {f"r{number}": output.outputs[0].text for number, output in enumerate(outputs)}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The block is a turn."""
        self.started = 0.0, 0.0
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.turn = Turn(time.perf_counter() - began - self.started[0], time.process_time() - cpu - self.started[1])

    def by_headrace(self) -> Answers:
        """A shard, of a batch that is planned beforehand."""
        self._turns += 1
        fields = {
            "model": {"name": "m", "task": "completion", "source": {"path": str(self._folder / "model")}},
            "engine": {"name": "vllm"},
            "batching": {"maxBatchSize": self._given.batch_size},
        }
        path = self._folder / f"turn-{self._turns}"
        path.mkdir()
        folder = Folder(path, fields)
        folder.write_input(*(self._line(number) for number in range(len(self.prompts))))
        config, around = folder.config(), Surroundings(Live(PlanReport()), Drain())
        plan(config, None, CREATED, lambda _: None)
        header = read_header(LocalStore(), config.plan_uri)
        shard = read_shard_entry(LocalStore(), config.plan_uri, 0)
        with self.timed():
            run_shard(config, header, shard, around)
        lines = folder.lines("results")
        return {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in lines}

    def engine(self, config: WorkerConfig, created: int) -> Engine:
        """The engine, with the vLLM that is there."""

        def start(_: Mapping[str, Any], *, pooling: bool) -> library.Core:
            assert not pooling
            return self._core

        began, cpu = time.perf_counter(), time.process_time()
        engine = VllmEngine(config, created, start)
        self.started = time.perf_counter() - began, time.process_time() - cpu
        return engine

    def _line(self, number: int) -> bytes:
        body = {"prompt": self.prompts[number], "max_tokens": self.lengths[number], "temperature": 0}
        record = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/completions", "body": body}
        return orjson.dumps(record) + b"\n"


def lognormal(rng: random.Random, low: int, high: int) -> int:
    """A length between two bounds: most are short, few are long."""
    return min(high, max(low, round(rng.lognormvariate(math.log(math.sqrt(low * high)), 0.6))))


def turns(it: Subject, rounds: int) -> tuple[dict[str, list[Turn]], dict[str, Answers]]:
    """What each contender's turns took, and its answers. Each begins every other round."""
    took: dict[str, list[Turn]] = {"headrace": [], "generate": []}
    answers: dict[str, Answers] = {}
    contenders: list[tuple[str, Callable[[], Answers]]] = [("headrace", it.by_headrace), ("generate", it.by_generate)]
    for number in range(rounds + 1):
        for name, contender in contenders:
            answers[name] = contender()
            if number:  # the first is for warming up
                took[name].append(it.turn)
                print(f"  {name}: {it.turn.seconds:.2f} s, {it.turn.cpu_seconds:.2f} s of CPU", file=sys.stderr)
        contenders.reverse()
    return took, answers


def main() -> int:
    """Measure; the exit code is 1 below the bar, or when float32 answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--eager", action="store_true", help="without compiling the model first, which takes minutes on a CPU"
    )
    parser.add_argument("--tiny", action="store_true", help="with a model that takes hardly any time")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        it = Subject(given, Path(folder))
        engines.create = it.engine
        took, answers = turns(it, given.rounds)
    seconds = {name: [round(turn.seconds, 3) for turn in found] for name, found in took.items()}
    ratio = statistics.median(seconds["generate"]) / statistics.median(seconds["headrace"])
    equal = sum(answers["headrace"][name] == text for name, text in answers["generate"].items())
    own = {
        name: 1e6 * statistics.median(turn.cpu_seconds for turn in found) / given.records
        for name, found in took.items()
    }
    for name, found in seconds.items():
        speed = it.tokens / statistics.median(found)
        print(f"{name:10} {speed:9,.1f} tokens/s  median of {found} s; {own[name]:,.0f} µs of CPU a record here")
    print(f"headrace is at {ratio:.3f} of generate; {equal} of {given.records} answers are equal")
    if given.json:
        figures = {"seconds": seconds, "tokens": it.tokens, "ratio": ratio, "equal": equal, "records": given.records}
        given.json.write_text(json.dumps({**figures, "own_cpu_microseconds_a_record": own}, indent=2) + "\n")
    return int(ratio < BAR or (given.dtype == "float32" and equal < given.records))


if __name__ == "__main__":
    sys.exit(main())
