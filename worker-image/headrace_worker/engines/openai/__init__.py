"""The engine `openai`: requests to servers that speak OpenAI's API, wherever they are.

From a record to its answer:

- `engine` holds the records that are in hand; `flights` are the requests under way
- `endpoints` decides which `endpoint` a record goes to, and when: `balancing` is the choice between those that can take it, `adaptive` how
  much each is asked at once and how fast, `breaker` whether it is asked at all
- `pods` tells the other pods of the batch what is known here, through files (`board`), and heeds what they tell (`sharing`); `parked` is
  what a pod leaves for those that come after it
- `client` sends a request; `keys` reads the API keys
- `replies` reads what a server says; `verdicts` says what that means for its record and for the endpoint

A try that failed goes back to the worker, which has the only layer of retries. A record that was not tried at all (the endpoint has too
much to do, cannot be reached, or has not been asked because of its breaker) stays here and costs nothing.
"""

from __future__ import annotations

from headrace.api.worker import WorkerConfig
from headrace_worker.engines import RequestChecker
from headrace_worker.engines.base import Engine, Likelihood
from headrace_worker.engines.openai.engine import EndpointsEngine
from headrace_worker.errors import JobFailed

__all__ = ["EndpointsEngine", "create", "likelihood", "request_checker"]


def create(config: WorkerConfig, created: int) -> Engine:
    """The engine of a batch; nothing is sent yet. Raises `JobFailed` for a task that endpoints cannot be asked for."""
    del created  # answers carry the time of their server
    return EndpointsEngine(config)


def request_checker(config: WorkerConfig) -> RequestChecker:
    """Checks what can be checked without the server: it alone knows its model's context."""
    engine = EndpointsEngine(config)
    return RequestChecker(None, lambda request: engine.prepare(0, request).tokens)


def likelihood(config: WorkerConfig) -> Likelihood:
    """Raises `JobFailed`: endpoints do not tell how likely they find a text that they have not written."""
    del config
    raise JobFailed(
        "EngineNotSuitable",
        "logLikelihood.engine.name must be transformers: endpoints do not say how likely they find a text",
    )
