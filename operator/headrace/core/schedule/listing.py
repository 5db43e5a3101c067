"""The Job of a look at what is new: one small pod of the worker image, which has the credentials of the runs. The operator has none."""

from __future__ import annotations

from dataclasses import replace

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.engines import Engine, EngineName
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec
from headrace.api.input import Input, Output
from headrace.api.meta import ObjectMeta
from headrace.api.model import Model
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow, Objects
from headrace.api.worker import Role
from headrace.core.children import owned, single_job
from headrace.core.observed import Installation
from headrace.core.schedule.observed import listing_name
from headrace.core.schedule.trigger import watched

_TRIES = 3
_NOWHERE = "file:///nothing-is-written/"
"""The output of a worker that has none. So that the pod needs no claim that another one may hold."""


def listing_job(schedule: ScheduledGeneration, place: Installation, window: DataWindow) -> JsonObject:
    """The Job that counts what was modified in a window. It is in no trace: the run that it leads to begins one."""
    job = single_job(lister(schedule, window), replace(place, tracing=None), Role.LIST, _TRIES)
    metadata = owned(schedule, listing_name(schedule.metadata.name, window.end_time), Role.LIST)
    metadata["labels"] |= {labels.ROLE: str(Role.LIST), labels.ROUND: "0"}
    template = {**job["spec"]["template"], "metadata": {"labels": metadata["labels"]}}
    return {**job, "metadata": metadata, "spec": {**job["spec"], "template": template}}


def lister(schedule: ScheduledGeneration, window: DataWindow) -> InferenceBatch:
    """A batch that has the input of the runs and what they reach it with, and nothing else of them."""
    wanted, (work,) = watched(schedule), schedule.spec.template.work
    assert wanted is not None
    return InferenceBatch(
        metadata=ObjectMeta(name=schedule.metadata.name, namespace=schedule.metadata.namespace),
        spec=InferenceBatchSpec(
            model=Model(name="none"),
            engine=Engine(name=EngineName.MOCK),
            input=Input(uri=wanted.uri or work.input.uri, objects=Objects.MODIFIED_IN_WINDOW, window=window),
            output=Output(uri=_NOWHERE),
            storage=work.storage,
            service_account_name=work.service_account_name,
        ),
    )
