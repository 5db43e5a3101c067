"""The parts of `metadata` that Headrace reads or writes, and what statuses have in common: the conditions above all."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Protocol

from pydantic import ConfigDict, Field

from headrace.api.base import ApiModel, Count, Name, Time
from headrace.api.reasons import ConditionType


class OwnerReference(ApiModel):
    """Who an object belongs to; deleting the owner deletes the object."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(ApiModel):
    """`metadata`, as far as it is looked at. Fields of other writers are accepted and left alone."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    name: Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()


class Named(Protocol):
    """An object of one of our kinds, as far as it can be named."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its name and whatever else is known of it."""


class ConditionStatus(StrEnum):
    """Whether a condition holds; an absent condition means Unknown."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation about an object, in the form of `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    """An adjective or a past participle, such as `Complete`."""
    status: ConditionStatus
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """One CamelCase word from the enumerated reasons; for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """A sentence with numbers; for people."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Count = 0
    """The generation of the spec that this was observed of."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
"""The conditions of an object, one of a type."""


class ConditionsStatus(ApiModel):
    """What the statuses of all kinds that are in a namespace begin with."""

    observed_generation: Count = 0
    """The generation of the spec that this status speaks of."""
    conditions: Conditions = ()

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type; None when it has not been observed."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: ConditionType) -> bool:
        """Whether the condition of that type holds."""
        found = self.condition(kind)
        return found is not None and found.status == ConditionStatus.TRUE


class WorkStatus(ConditionsStatus):
    """What the statuses of all kinds that work on records begin with."""

    retries: Count = 0
    """How many of the retries asked for have been begun."""
    retry_time: Time | None = None
    """When the last of them was begun; from then on its deadline is counted."""
    first_record_time: Time | None = None
    """When the first record was begun, by the clock of the pod that has begun it."""

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more."""
        return self.is_true(ConditionType.COMPLETE) or self.is_true(ConditionType.FAILED)
