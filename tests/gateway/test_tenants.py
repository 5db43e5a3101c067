"""Tenants: nobody is let in without a key, and nobody sees anything of another, whatever is asked."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from openai import AuthenticationError, NotFoundError, OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from builders import a_batch
from gateway_rig import request
from headrace.api.asking import RequestState
from headrace.api.base import InvalidSpec
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.tenancy import KeyedTenants
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.keys import PROTOCOL, bearer, key_hash, new_key, offered, tenant_faults, tenant_of_key
from headrace.gateway.tenants.keyfile import KeyFile
from headrace.shells.problems import ManifestError
from headrace.shells.tenants import load_tenants
from laptop import PATIENCE_SECONDS
from open_house import House, open_house

RED, BLUE, WRONG = (new_key(bytes([number]) * 32) for number in range(3))
OPEN = {"/healthz", "/readyz", "/metrics", "/status.css", "/openapi.json"}
"""What is answered to anybody. Whoever adds to it shows nothing there of any tenant."""
BODY = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}


COMPLETE = ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED


def written(file: Path, **keys: list[str]) -> Path:
    """A file of tenants with these keys."""
    tenants = [{"name": name, "keys": [key_hash(key) for key in those]} for name, those in keys.items()]
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump({"tenants": tenants}))
    os.replace(new, file)
    return file


@dataclass
class Town:
    """A gateway with the tenants `red` and `blue`."""

    house: House
    file: Path

    def ask(self, method: str, path: str, key: str | None = RED, **more: Any) -> httpx2.Response:
        """Send a request."""
        headers = {**({"Authorization": f"Bearer {key}"} if key is not None else {}), **more.pop("headers", {})}
        return httpx2.request(method, f"{self.house.url}{path}", headers=headers, **more)

    def client(self, key: str) -> OpenAI:
        """OpenAI's own."""
        return OpenAI(base_url=f"{self.house.url}/v1", api_key=key, max_retries=0)

    def refused_socket(self, path: str, headers: Mapping[str, str]) -> int:
        """The status with which a WebSocket is not opened."""
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws{self.house.url.removeprefix('http')}{path}", additional_headers=dict(headers))
        return caught.value.response.status_code


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Such a gateway, for all tests of the module."""
    folder = tmp_path_factory.mktemp("town")
    file = written(folder / "tenants.yaml", red=[RED], blue=[BLUE])
    with open_house(folder / "state", identities=KeyFile(file)) as house:
        yield Town(house, file)


@pytest.fixture(scope="module")
def of_red(town: Town) -> dict[str, str]:
    """An id of the tenant red for each that can stand in a path."""
    file = town.client(RED).files.create(file=("in.jsonl", request("a")), purpose="batch")
    town.house.batch(a_batch("reviews").with_condition(*COMPLETE), "red")
    return {
        "file_id": file.id,
        "batch_id": "batch_reviews",
        "request_id": town.house.ended(RequestState.FAILED, 7, namespace="red"),
    }


def every(house: House) -> list[tuple[str, str]]:
    """Each method of each path that is answered, but for what is open."""
    found = [(method, path) for path, methods in house.methods.items() for method in methods]
    return [(method, path) for method, path in found if path not in OPEN]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no key"),
        pytest.param({"Authorization": f"Bearer {WRONG}"}, id="a wrong key"),
        pytest.param({"Authorization": "Bearer"}, id="an empty key"),
        pytest.param({"Authorization": f"Basic {RED}"}, id="another scheme"),
        pytest.param({"Authorization": f"Bearer {key_hash(RED)}"}, id="what is kept of a key"),
        pytest.param({"Sec-WebSocket-Protocol": "base64url.bearer.authorization.headrace.dev.!"}, id="no base64"),
    ],
)
def test_nothing_is_answered_to_nobody(town: Town, of_red: Mapping[str, str], headers: dict[str, str]) -> None:
    routes = every(town.house)
    assert len(routes) > 15
    for method, path in routes:
        at = path.format_map(of_red)
        if method == "WEBSOCKET":
            assert town.refused_socket(at, headers) == 401, path
            continue
        answer = town.ask(method, at, None, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_is_open_is_open_and_nothing_else_is(town: Town) -> None:
    assert {path for path in town.house.methods if town.ask("GET", path, None).status_code == 200} == OPEN
    assert town.ask("GET", "/v1/anything", None).status_code == 401, "also what is not there"


def test_ids_of_another_tenant_are_not_there(town: Town, of_red: Mapping[str, str]) -> None:
    """Each path that has an id in it, with that of another: the answer is that to an id of nobody."""
    paths = [(method, path) for method, path in every(town.house) if "{" in path]
    assert len(paths) > 5
    for method, path in paths:
        found = [town.ask(method, path.format_map(ids), BLUE) for ids in (of_red, {**of_red, "batch_id": "batch_no"})]
        assert [answer.status_code for answer in found] == [404, 404], (method, path)
    for path in {path for _, path in paths}:
        assert town.ask("GET", path.format_map(of_red)).status_code in (200, 404, 405), "they are still red's"
    assert town.client(RED).files.retrieve(of_red["file_id"]).filename == "in.jsonl"
    assert town.client(RED).batches.retrieve(of_red["batch_id"]).status == "completed"


def test_lists_have_nothing_of_another_tenant(town: Town, of_red: Mapping[str, str]) -> None:
    for path in ("/v1/files", "/v1/batches", "/v1/dead_letters"):
        assert of_red["file_id"] or town.ask("GET", path).json()["data"]
        assert town.ask("GET", path, BLUE).json()["data"] == [], path


def test_input_of_another_tenant_is_not_there(town: Town, of_red: Mapping[str, str]) -> None:
    asked = {
        "input_file_id": of_red["file_id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    answer = town.ask("POST", "/v1/batches", BLUE, json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_found")
    assert town.ask("POST", "/v1/batches", RED, json=asked).status_code == 200


def test_streams_tell_nothing_of_another_tenant(town: Town, of_red: Mapping[str, str]) -> None:
    path = f"/v1/stream?id={of_red['request_id']}"
    assert town.ask("GET", path, BLUE).status_code == 404
    assert b"event: request" in town.ask("GET", path, RED).content
    spoken = f"base64url.bearer.authorization.{PROTOCOL}.{urlsafe_b64encode(BLUE.encode()).decode().rstrip('=')}"
    url = f"ws{town.house.url.removeprefix('http')}/v1/stream"
    with connect(url, subprotocols=[PROTOCOL, spoken]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == PROTOCOL, "the key is not said again"
        socket.send(json.dumps({"subscribe": {of_red["request_id"]: None}}))
        said = json.loads(socket.recv())
        assert (said["type"], said["error"]["code"]) == ("error", "not_found")


def bearer_of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_streams_end_when_their_key_is_taken_back_and_no_others_do(town: Town) -> None:
    name = town.ask("POST", "/v1/requests", BLUE, json=BODY).json()["id"]
    url = f"{town.house.url}/v1/stream?id={name}"
    of_blue = connect(f"ws{url.removeprefix('http')}", additional_headers=bearer_of(BLUE))
    of_other = connect(f"ws{town.house.url.removeprefix('http')}/v1/stream", additional_headers=bearer_of(RED))
    with of_blue, of_other, httpx2.stream("GET", url, headers=bearer_of(BLUE)) as events:
        assert json.loads(of_blue.recv())["request"]["status"] == "queued"
        town.house.look_who_stays()
        assert of_blue.ping().wait(PATIENCE_SECONDS), "nothing has changed"
        written(town.file, red=[RED], blue=[])
        town.house.look_who_stays()
        assert json.loads(of_blue.recv())["error"]["code"] == "invalid_api_key"
        with pytest.raises(ConnectionClosed) as closed:
            of_blue.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        told = events.read().decode()  # it ends
        assert told.rstrip().rpartition("event: error")[2].count("invalid_api_key") == 1
        assert of_other.ping().wait(PATIENCE_SECONDS)
    with connect(f"ws{town.house.url.removeprefix('http')}/v1/stream", additional_headers=bearer_of(RED)) as moved:
        written(town.file, red=[], blue=[BLUE, RED])
        town.house.look_who_stays()
        assert json.loads(moved.recv())["error"]["message"] == "the key is another tenant's now"
    written(town.file, red=[RED], blue=[BLUE])


def test_same_idempotency_key_of_two_tenants_is_two_keys(town: Town) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = town.ask("POST", "/v1/requests", RED, json=BODY, headers=headers)
    other = town.ask("POST", "/v1/requests", BLUE, json=BODY, headers=headers)
    again = town.ask("POST", "/v1/requests", RED, json=BODY, headers=headers)
    assert (first.status_code, other.status_code, again.status_code) == (202, 202, 200)
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert town.ask("GET", f"/v1/requests/{other.json()['id']}", RED).status_code == 404


def test_openai_client_with_a_key(town: Town) -> None:
    file = town.client(BLUE).files.create(file=("in.jsonl", request("a")), purpose="batch")
    with pytest.raises(NotFoundError):
        town.client(RED).files.retrieve(file.id)
    with pytest.raises(AuthenticationError, match="the key is not known here"):
        town.client(WRONG).files.list()
    assert town.client(BLUE).files.delete(file.id).deleted


def test_keys_are_changed_one_after_the_other(town: Town) -> None:
    """Both are good for a while; then the old one is not any more. A slip of the pen changes nothing."""
    new = new_key(b"n" * 32)
    written(town.file, red=[RED], blue=[BLUE, new])
    assert [town.ask("GET", "/v1/models", key).status_code for key in (RED, BLUE, new)] == [200, 200, 200]
    written(town.file, red=[RED], blue=[new])
    assert [town.ask("GET", "/v1/models", key).status_code for key in (RED, BLUE, new)] == [200, 401, 200]
    town.file.write_text("tenants: []\n")
    assert [town.ask("GET", "/v1/models", key).status_code for key in (RED, BLUE, new)] == [200, 401, 200]
    town.file.unlink()
    assert town.ask("GET", "/v1/models", new).status_code == 200
    written(town.file, red=[RED], blue=[BLUE])
    assert [town.ask("GET", "/v1/models", key).status_code for key in (RED, BLUE, new)] == [200, 200, 401]


def test_key_is_random_and_known_by_its_hash_alone() -> None:
    key = new_key(b"\x00" * 32)
    assert key == "hrk_" + "A" * 43
    known = KeyedTenants.parse({"tenants": [{"name": "red", "namespace": "team-red", "keys": [key_hash(key)]}]})
    found = tenant_of_key(key, known)
    assert found is not None
    assert (found.name, found.namespace) == ("red", "team-red")
    assert tenant_of_key(key_hash(key), known) is None
    assert tenant_of_key("", known) is None


def test_bearer_is_in_the_header_or_in_a_protocol() -> None:
    assert bearer("bearer  abc ") == "abc"
    spoken = f"base64url.bearer.authorization.{PROTOCOL}.{urlsafe_b64encode(b'abc').decode()}"
    assert bearer(None, offered(f"{PROTOCOL}, {spoken}")) == "abc"
    for header in (None, "", "abc", "Basic abc", "Bearer"):
        with pytest.raises(ApiError):
            bearer(header)


@pytest.mark.parametrize(
    ("tenants", "field"),
    [
        ([{"name": "a", "keys": []}, {"name": "a", "namespace": "b", "keys": []}], "tenants[1].name"),
        ([{"name": "a", "keys": []}, {"name": "b", "namespace": "a", "keys": []}], "tenants[1].namespace"),
        ([{"name": "a", "keys": [key_hash("x")] * 2}], "tenants[0].keys[1]"),
        ([{"name": "a", "keys": [key_hash("x")]}, {"name": "b", "keys": [key_hash("x")]}], "tenants[1].keys[0]"),
    ],
)
def test_tenants_that_would_be_one(tenants: list[dict[str, Any]], field: str) -> None:
    assert [fault.field for fault in tenant_faults(KeyedTenants.parse({"tenants": tenants}))] == [field]


def test_file_of_tenants_that_is_not_good_says_where_and_shows_no_key(tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(f"tenants:\n  - name: red\n    keys:\n      - {RED}\n")
    with pytest.raises(ManifestError, match=r"tenants\.yaml:4: tenants\[0\]\.keys\[0\]") as caught:
        load_tenants(file)
    assert RED not in str(caught.value)
    with pytest.raises(ManifestError, match="cannot be read"):
        load_tenants(tmp_path / "none.yaml")
    with pytest.raises(InvalidSpec):
        KeyedTenants.parse({"tenants": []})


def test_tenants_that_share_a_signing_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("whsec_" + "A" * 32)
    webhooks = {"allowedHosts": ["example.org"], "keysFile": "keys"}
    tenants = [{"name": name, "keys": list[str](), "webhooks": webhooks} for name in ("red", "blue")]
    (tmp_path / "tenants.yaml").write_text(yaml.safe_dump({"tenants": tenants}))
    with pytest.raises(ManifestError, match=r"tenants\[1\]\.webhooks\.keysFile.*could sign"):
        load_tenants(tmp_path / "tenants.yaml")
