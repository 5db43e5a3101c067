"""What the gateway is told: which models it serves, and the requests of OpenAI's Files and Batches that have a body.

Requests are in OpenAI's names, the models in those of an InferenceBatch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from headrace.api.asking import RequestRoute, Webhooks
from headrace.api.base import ApiModel, FreeObject, Name
from headrace.api.common import Storage
from headrace.api.inferencebatch import Work
from headrace.api.model import Model

MAX_WINDOW_SECONDS = 31_536_000
"""What `completionDeadlineSeconds` can hold."""
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ServedModel(Work):
    """A model under the name that requests call it by, and how batches for it are run: an InferenceBatch without input and output."""

    storage: Storage | None = None
    """Credentials and settings of the object stores."""
    service_account_name: Name | None = None
    """The ServiceAccount that the pods run as."""

    @property
    def endpoint(self) -> str | None:
        """The OpenAI endpoint that it answers; None where OpenAI has none."""
        return self.model.task.endpoint


class ServedModels(ApiModel):
    """All models that a gateway serves. One that answers several endpoints is there once for each."""

    models: Annotated[tuple[ServedModel, ...], Field(min_length=1, max_length=1000)]
    """What requests may name in `model`."""
    routes: Annotated[tuple[RequestRoute, ...], Field(max_length=100)] = ()
    """Where single requests gather into batches; without any, only whole batches are taken."""

    webhooks: Webhooks | None = None
    """Calls when requests have ended; without it none are made."""

    @property
    def endpoints(self) -> list[str]:
        """The endpoints for which there is a model."""
        return sorted({served.endpoint for served in self.models if served.endpoint is not None})

    def named(self, name: str, endpoint: str) -> ServedModel | None:
        """The model of that name for that endpoint; None when there is none."""
        return next((it for it in self.models if (it.model.name, it.endpoint) == (name, endpoint)), None)

    def answering(self, route: RequestRoute) -> ServedModel | None:
        """The model that answers a route; None when there is none. For a fan-out, whose branches have theirs, one that stands for all."""
        if route.target.fan_out_job is not None:
            return ServedModel(model=Model(name=route.model, task=route.task))
        wanted = (route.model, route.task)
        return next((it for it in self.models if (it.model.name, it.model.task) == wanted), None)

    def served(self, route: RequestRoute) -> ServedModel:
        """The model that answers a route of a file that was found good."""
        found = self.answering(route)
        assert found is not None, "checked when the models were read"
        return found

    def names(self, endpoint: str) -> list[str]:
        """What models are called that answer that endpoint."""
        return sorted(it.model.name for it in self.models if it.endpoint == endpoint)


class OpenAIModel(ApiModel):
    """Base of what is in OpenAI's names, which are snake_case outside too."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=None)


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""What a client wants to find again: at most 16 texts of 512 characters, each under a name of 64."""


class BatchRequest(OpenAIModel):
    """The body of `POST /v1/batches`."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=256)]
    """A file that was uploaded with the purpose `batch`."""
    endpoint: Annotated[str, Field(min_length=1, max_length=256)]
    """The `url` of its lines."""
    completion_window: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,7}[smhd]$")]
    """After how long the batch is given up: `24h`, as OpenAI has it, or any other number of s, m, h or d."""
    metadata: Metadata | None = None
    """Given back with the batch, and never looked at."""

    @property
    def window_seconds(self) -> int:
        """The completion window in seconds."""
        return int(self.completion_window[:-1]) * _UNIT_SECONDS[self.completion_window[-1]]


class Message(OpenAIModel):
    """A message of a chat, as far as the gateway looks at it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    role: str
    content: str | tuple[FreeObject, ...] | None = None
    """A text, or parts: texts, images, sounds."""


class AskedRequest(OpenAIModel):
    """The body of `POST /v1/requests`: what the endpoint of the model would take, as far as the gateway looks at it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1)] | None = None
    """The model that answers; not needed with `?route=NAME`."""
    messages: Annotated[tuple[Message, ...], Field(min_length=1)] | None = None
    """What a chat model is asked."""
    prompt: Annotated[str, Field(min_length=1)] | None = None
    """What a completion begins with."""
    input: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """What is embedded."""


class UploadForm(OpenAIModel):
    """The form of `POST /v1/files`."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    """JSON lines, with a filename."""
    purpose: Literal["batch"]


class UploadedFile(OpenAIModel):
    """A file that somebody has uploaded, as it is kept beside its content."""

    id: Annotated[str, Field(pattern=r"^file-[0-9a-f]{24}$")]
    bytes: Annotated[int, Field(ge=0)]
    created_at: Annotated[int, Field(ge=0)]
    """Seconds since the epoch."""
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    """What its uploader calls it; nothing here is named after it."""
    purpose: Annotated[str, Field(pattern=r"^batch$")]
