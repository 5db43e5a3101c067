"""Tenants of a cluster: what is asked of its API server about whoever sends a token, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.core.openai.errors import ApiError, bad_request, unavailable
from headrace.core.tenancy.keys import unknown

ALLOWED_SECONDS = 10
"""How long it is believed that somebody may: so long somebody may go on who may not any more."""
REFUSED_SECONDS = 2
"""How long it is believed that somebody may not."""
HEADERS = ("headrace-namespace", "openai-project")
"""Headers that name a namespace; OpenAI's client sends the second, as its `project`."""
_AWAY_SECONDS = 2
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")


def token_review(token: str, audiences: Sequence[str]) -> JsonObject:
    """The question whose token it is. `audiences`: it must be meant for one of these; without any, for the API server."""
    spec: JsonObject = {"token": token, **({"audiences": [*audiences]} if audiences else {})}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def user_of(review: JsonObject, audiences: Sequence[str]) -> JsonObject:
    """The user that an answer names. Raises `ApiError`."""
    status = review.get("status") or {}
    user = status.get("user") or {}
    if not status.get("authenticated") or not user.get("username"):
        raise unknown("the cluster does not know the token")
    if audiences and not {*audiences} & {
        *(status.get("audiences") or ())
    }:  # a server that knows of no audiences says none
        raise unknown("the token is not meant for this gateway")
    return dict(user)


def namespace_of(user: JsonObject, wanted: str | None) -> str:
    """The namespace that a request is about: the one that it names, else that of the service account. Raises `ApiError`."""
    if wanted is not None:
        if _NAMESPACE.fullmatch(wanted) is None:
            raise bad_request(f"{wanted[:80]} is the name of no namespace", "Headrace-Namespace", "invalid_value")
        return wanted
    found = _SERVICE_ACCOUNT.fullmatch(user["username"])
    if found is None:
        message = "the header Headrace-Namespace, or OpenAI-Project, must name a namespace: the token is of no service account"
        raise bad_request(message, "Headrace-Namespace", "missing_required_parameter")
    return found[1]


def access_review(user: JsonObject, namespace: str) -> JsonObject:
    """The question whether a user may make batches in a namespace."""
    attributes = {"namespace": namespace, "verb": "create", "group": labels.GROUP, "resource": "inferencebatches"}
    said = {"user": user["username"], **{name: user[name] for name in ("groups", "uid", "extra") if user.get(name)}}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {**said, "resourceAttributes": attributes},
    }


def check_access(review: JsonObject, user: JsonObject, namespace: str) -> None:
    """Raise `ApiError` unless the answer is that the user may."""
    status = review.get("status") or {}
    if status.get("denied") or not status.get("allowed"):
        message = f"{user['username']} may not create inferencebatches in the namespace {namespace}"
        raise ApiError(403, message, "Headrace-Namespace", "not_allowed")


def cannot_tell() -> ApiError:
    """The refusal while the API server does not say who is who: nobody is shut out for good, and nobody is let in."""
    return unavailable("the cluster does not answer who this is: send it again", _AWAY_SECONDS)
