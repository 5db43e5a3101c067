"""Which output `spec.resumeFrom` means: found once, before anything is read, and kept in the status."""

from __future__ import annotations

from headrace.api.reasons import Reason
from headrace.core.observed import Observed
from headrace.core.step import Step, failed
from headrace.core.volumes import output_uri


def find_earlier(observed: Observed) -> Step | None:
    """The step that finds it; None when nothing is to be found, or was."""
    batch, wanted = observed.batch, observed.batch.spec.resume_from
    if wanted is None or batch.status.resumed_from is not None:
        return None
    if wanted.uri is not None:
        return Step(changes={"resumed_from": wanted.uri})
    if wanted.name == batch.metadata.name:
        return failed(Reason.INVALID_SPEC, "spec.resumeFrom.name must be the name of another batch")
    if observed.earlier is None:
        message = f"spec.resumeFrom.name: there is no InferenceBatch {batch.metadata.namespace}/{wanted.name}; name its output by uri"
        return failed(Reason.INVALID_SPEC, message)
    told = observed.earlier.status.output
    return Step(changes={"resumed_from": told.uri if told else output_uri(observed.earlier, observed.installation)})
