"""What a cluster refuses, as sentences with a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.api.labels import GROUP
from headrace.cli.exits import CliError
from headrace.shells.kube.errors import ApiError, Conflict, NotFound, TransientFailure
from headrace.shells.kube.kubeconfig import Context
from headrace.shells.kube.objects import Missing, OtherVersion
from headrace.shells.kube.reader import NoReader
from headrace.shells.kube.submission import field_errors

_INSTALL = "headrace crds | kubectl apply --server-side -f -"
_REASONS: dict[type[Exception], str] = {Missing: "NotFound", NoReader: "NoReader", OtherVersion: "OtherVersion"}
_REQUEST = re.compile(r"^(GET|PUT|POST|PATCH|DELETE|WATCH) \S+: ")


@contextmanager
def sentences(context: Context) -> Iterator[None]:
    """Turn what an API server refuses inside the block into `CliError`s."""
    try:
        yield
    except (ApiError, TransientFailure) as error:
        raise explained(error, context) from error
    except (Missing, NoReader, OtherVersion) as error:
        raise CliError(_REASONS[type(error)], str(error)) from error


def explained(error: ApiError | TransientFailure, context: Context) -> CliError:
    """The refusal in a sentence."""
    said = _REQUEST.sub("", str(error) if isinstance(error, TransientFailure) else error.message)
    cluster = f"the cluster of the context {context.name}"
    if isinstance(error, TransientFailure):
        remedy = "check that it runs and that you can reach it, or choose another --context"
        return CliError("Unreachable", f"{cluster} does not answer at {context.server}: {said}: {remedy}")
    if error.status == 401:
        remedy = "log in to it again, or choose another --context"
        return CliError("Unauthorized", f"{cluster} does not know who you are: {remedy}")
    if error.status == 403:
        return CliError("Forbidden", f"{cluster} does not let you: {said}: ask whoever runs it for that right")
    if isinstance(error, NotFound) and not error.said.get("details"):
        return CliError("NotInstalled", f"{cluster} knows no {GROUP} objects: install them with `{_INSTALL}`")
    if isinstance(error, Conflict):
        return CliError("Conflict", f"{cluster} refuses it, for somebody else was faster: {said}: do it again")
    found = "; ".join(map(str, field_errors(error)))
    return CliError(str(error.said.get("reason") or "Refused"), f"{cluster} refuses it: {found}")
