"""Which volumes a batch's pods mount, and where the objects on them appear as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from headrace.api.aggregation import Aggregation
from headrace.api.base import JsonObject
from headrace.api.evaluation import Evaluation
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.input import Input
from headrace.api.manifest import readable_here
from headrace.api.model import Model, ModelSource
from headrace.api.output import PLAN_FILE, PLAN_PATH
from headrace.api.reuse import Dedup
from headrace.core.observed import Installation

RECORDS_FILE = "records.jsonl"


def inline_config_map_name(batch: InferenceBatch) -> str:
    """The ConfigMap that carries inline records to the workers."""
    return f"{batch.metadata.name}-input"


@dataclass(frozen=True, slots=True)
class Volumes:
    """The pod's volumes, and the places that a worker reads and writes, as it sees them."""

    volumes: tuple[JsonObject, ...]
    mounts: tuple[JsonObject, ...]
    model: Model
    input: Input
    plan_uri: str
    output_uri: str
    aggregation: Aggregation | None = None
    evaluation: Evaluation | None = None
    resume_from: str | None = None
    dedup: Dedup = field(default_factory=Dedup)

    @classmethod
    def of(cls, batch: InferenceBatch, place: Installation, aggregation: Aggregation | None = None) -> Volumes:
        """The volumes of a batch's pods at that place; of a join's, those of the models that it runs too."""
        spec, found = batch.spec.input, _Mounts(place.files_root)
        output = found.visible(output_uri(batch, place) or "", writable=True)
        plan = f"{output.rstrip('/')}/{PLAN_PATH}"
        if spec.inline is not None:
            folder = found.config_map(inline_config_map_name(batch))
            uri = f"{folder}/{RECORDS_FILE}"
            plan = f"{folder}/{PLAN_FILE}" if readable_here(spec, batch.spec.evaluation) else plan
        elif spec.config_map_ref is not None:
            uri = f"{found.config_map(spec.config_map_ref.name)}/{spec.config_map_ref.key or ''}"
        else:
            uri = found.visible(spec.uri or "")
        carried = found.visible(spec.carried_from) if spec.carried_from is not None else None
        here = {"uri": uri, "inline": None, "config_map_ref": None, "carried_from": carried}
        seen = spec.model_copy(update=here)
        model = found.model(batch.spec.model)
        joined = aggregation.with_models(found.model) if aggregation is not None else None
        evaluation = found.evaluation(batch.spec.evaluation)
        earlier, cache = batch.status.resumed_from, batch.spec.dedup.cache_uri
        resumed = found.visible(earlier) if earlier is not None else None
        cached = found.visible(cache, writable=True) if cache is not None else None
        dedup = batch.spec.dedup.model_copy(update={"cache_uri": cached})
        return cls(
            tuple(found.volumes), tuple(found.mounts), model, seen, plan, output, joined, evaluation, resumed, dedup
        )


class _Mounts:
    """Collects volumes; each is mounted at `<files_root>/<name>`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.volumes: list[JsonObject] = []
        self.mounts: list[JsonObject] = []

    def config_map(self, name: str) -> str:
        return self._mount(name, {"configMap": {"name": name}}, read_only=True)

    def visible(self, uri: str, *, writable: bool = False) -> str:
        """The URI as a worker sees it: `claim://NAME/PATH` becomes a file below the claim's mount."""
        parts = urlsplit(uri)
        if parts.scheme != "claim":
            return uri
        claim = {"persistentVolumeClaim": {"claimName": parts.netloc}}
        return self._mount(parts.netloc, claim, read_only=not writable) + parts.path

    def model(self, model: Model) -> Model:
        """The model as a worker sees it: weights on a claim or in an image become a path."""
        source = model.source
        if source is None or (source.claim is None and source.oci_image is None):
            return model
        if source.claim is not None:
            folder = self.visible(f"claim://{source.claim.name}/{source.claim.path.lstrip('/')}")
        else:
            assert source.oci_image is not None
            image = {"image": {"reference": source.oci_image.reference, "pullPolicy": "IfNotPresent"}}
            folder = (
                f"{self._mount(self._image_name(image), image, read_only=True)}/{source.oci_image.path.lstrip('/')}"
            )
        path = folder.removeprefix("file://").rstrip("/")
        return model.model_copy(update={"source": ModelSource(path=path)})

    def evaluation(self, evaluation: Evaluation | None) -> Evaluation | None:
        """What is compared, and with what, as a worker sees it."""
        if evaluation is None:
            return None
        use, reference = evaluation.embedding, evaluation.reference
        seen = {
            "reference": self.visible(reference) if reference is not None else None,
            "embedding": use.model_copy(update={"model": self.model(use.model)}) if use is not None else None,
        }
        return evaluation.model_copy(update=seen)

    def _image_name(self, image: JsonObject) -> str:
        """What an image volume is called: `model`, and `model-2` for the second image."""
        images = [volume["image"] for volume in self.volumes if "image" in volume]
        number = images.index(image["image"]) if image["image"] in images else len(images)
        return "model" if number == 0 else f"model-{number + 1}"

    def _mount(self, name: str, source: JsonObject, *, read_only: bool) -> str:
        path = f"{self.root}/{name}"
        known = next((m for m in self.mounts if m["mountPath"] == path), None)
        if known is None:
            volume = f"files-{len(self.volumes)}"
            self.volumes.append({"name": volume, **source})
            self.mounts.append({"name": volume, "mountPath": path, "readOnly": read_only})
        elif not read_only:
            known["readOnly"] = False
        return f"file://{path}"


def output_uri(batch: InferenceBatch, place: Installation) -> str | None:
    """The batch's own output folder; None when neither the batch nor the place names one."""
    if batch.spec.output.uri is not None:
        return batch.spec.output.uri
    if place.default_output is None:
        return None
    return f"{place.default_output.rstrip('/')}/{batch.metadata.namespace}/{batch.metadata.name}/"
