"""Tenants by the tokens of a cluster, whose API server is played here; tests/cluster asks a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from starlette.requests import HTTPConnection

from asking_rig import FakeClock
from headrace.api.tenancy import Tenant, TenantLimits
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.reviews import ALLOWED_SECONDS, REFUSED_SECONDS
from headrace.core.tenancy.staying import UNKNOWN_MILLISECONDS
from headrace.gateway.tenants.reviewed import Reviewed
from headrace.gateway.tenants.staying import Stays
from headrace.shells.kube.api import Api
from headrace.shells.kube.errors import ApiError as KubeError
from headrace.shells.kube.errors import TransientFailure
from headrace.shells.kube.resources import TOKEN_REVIEWS, Resource

USERS = {"sa": "system:serviceaccount:red:default", "person": "ada", "stranger": "eve"}
MAY = {("system:serviceaccount:red:default", "red"), ("ada", "red"), ("ada", "blue")}


@dataclass
class Server:
    """An API server that knows some users, and what they may."""

    failure: Exception | None = None
    audiences: list[str] | None = None
    """Those for which tokens are."""
    asked: list[str] = field(default_factory=list)
    """The kinds of questions."""
    may: set[tuple[str, str]] = field(default_factory=lambda: set(MAY))

    async def create(self, resource: Resource, _: str, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.asked.append(resource.kind)
        if self.failure is not None:
            raise self.failure
        spec = body["spec"]
        if resource == TOKEN_REVIEWS:
            name = USERS.get(spec["token"])
            if name is None:
                return {"status": {"error": "no"}}
            said = {"audiences": self.audiences} if self.audiences is not None else {}
            return {"status": {"authenticated": True, "user": {"username": name, "groups": ["all"]}, **said}}
        assert spec["groups"] == ["all"]
        wanted = spec["resourceAttributes"]
        assert (wanted["verb"], wanted["group"], wanted["resource"]) == ("create", "headrace.dev", "inferencebatches")
        return {"status": {"allowed": (spec["user"], wanted["namespace"]) in self.may}}


def sent(token: str | None, **headers: str) -> HTTPConnection:
    said = {**headers, **({"authorization": f"Bearer {token}"} if token is not None else {})}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]
    return HTTPConnection({"type": "http", "headers": raw})


def asked(
    story: Callable[[Reviewed, Server, FakeClock], Awaitable[None]], *audiences: str, server: Server | None = None
) -> None:
    """Tell a story of tokens."""
    there, clock = server or Server(), FakeClock()
    asyncio.run(story(Reviewed(cast("Api", there), clock, audiences, TenantLimits(max_files=3)), there, clock))  # type: ignore[arg-type]


async def refused(identities: Reviewed, request: HTTPConnection) -> tuple[int, str | None]:
    with pytest.raises(ApiError) as caught:
        await identities.tenant(request)
    return caught.value.status, caught.value.code


def test_token_leads_to_the_namespace_that_is_named_or_that_of_its_service_account() -> None:
    async def story(identities: Reviewed, _: Server, __: FakeClock) -> None:
        red = Tenant(name="red", namespace="red", limits=TenantLimits(max_files=3))
        assert await identities.tenant(sent("sa")) == red
        assert await identities.tenant(sent("person", headrace_namespace="red")) == red
        assert (await identities.tenant(sent("person", openai_project="blue"))).namespace == "blue"
        assert await refused(identities, sent("person")) == (400, "missing_required_parameter")
        assert await refused(identities, sent("person", openai_project="../red")) == (400, "invalid_value")

    asked(story)


def test_who_is_not_known_and_who_may_not_are_refused() -> None:
    async def story(identities: Reviewed, _: Server, __: FakeClock) -> None:
        assert await refused(identities, sent(None)) == (401, "invalid_api_key")
        assert await refused(identities, sent("nobody")) == (401, "invalid_api_key")
        assert await refused(identities, sent("stranger", headrace_namespace="red")) == (403, "not_allowed")
        assert await refused(identities, sent("sa", headrace_namespace="blue")) == (403, "not_allowed")

    asked(story)


def test_token_must_be_meant_for_this_gateway_where_that_is_asked_for() -> None:
    async def story(identities: Reviewed, server: Server, clock: FakeClock) -> None:
        assert await refused(identities, sent("sa")) == (401, "invalid_api_key")
        server.audiences = ["headrace"]
        clock.milliseconds += REFUSED_SECONDS * 1000
        assert (await identities.tenant(sent("sa"))).namespace == "red"

    asked(story, "headrace")


def test_what_the_cluster_has_said_holds_for_seconds_and_no_longer() -> None:
    async def story(identities: Reviewed, server: Server, clock: FakeClock) -> None:
        found = await asyncio.gather(*(identities.tenant(sent("sa")) for _ in range(20)))
        assert {one.namespace for one in found} == {"red"}
        assert server.asked == ["TokenReview", "SubjectAccessReview"], "many requests wait for one answer"
        server.may.clear()
        clock.milliseconds += ALLOWED_SECONDS * 1000 - 1
        assert (await identities.tenant(sent("sa"))).namespace == "red"
        clock.milliseconds += 1
        assert await refused(identities, sent("sa")) == (403, "not_allowed")
        server.may |= MAY
        assert await refused(identities, sent("sa")) == (403, "not_allowed")
        clock.milliseconds += REFUSED_SECONDS * 1000
        assert (await identities.tenant(sent("sa"))).namespace == "red"

    asked(story)


def test_who_stays_is_asked_about_again_and_leaves_when_the_review_has_lapsed() -> None:
    async def story(identities: Reviewed, server: Server, clock: FakeClock) -> None:
        stays, connection, left = Stays(identities, clock), sent("sa"), list[ApiError]()
        connection.scope["headrace.tenant"] = await identities.tenant(connection)
        with stays.stay(connection, left.append):
            for _ in range(3):
                clock.milliseconds += ALLOWED_SECONDS * 1000
                await stays.step()
            assert server.asked.count("TokenReview") == 4
            server.failure = TransientFailure("away")
            clock.milliseconds += UNKNOWN_MILLISECONDS - 1
            await stays.step()
            assert left == [], "it may be back in a moment"
            server.failure = None
            await stays.step()
            server.failure = TransientFailure("away")
            clock.milliseconds += UNKNOWN_MILLISECONDS - 1
            await stays.step()
            assert left == []
            clock.milliseconds += 1
            await stays.step()
            assert [error.status for error in left] == [503]
        server.failure = None
        with stays.stay(connection, left.append):
            server.may.clear()
            clock.milliseconds += ALLOWED_SECONDS * 1000
            await stays.step()
            await stays.step()
            assert [error.code for error in left[1:]] == ["not_allowed"], "it is said once"

    asked(story)


@pytest.mark.parametrize("failure", [TransientFailure("away"), KubeError(403, "the gateway may not ask")])
def test_cluster_that_cannot_tell_lets_nobody_in_and_sends_nobody_away_for_good(failure: Exception) -> None:
    async def story(identities: Reviewed, server: Server, _: FakeClock) -> None:
        assert await refused(identities, sent("sa")) == (503, "unavailable")
        server.failure = None
        assert (await identities.tenant(sent("sa"))).namespace == "red"

    asked(story, server=Server(failure=failure))
