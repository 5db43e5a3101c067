"""The gateway does what its OpenAPI document says: requests are made of the document, good and bad, and each answer is held against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import schemathesis
from hypothesis import settings
from openai import OpenAI
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from builders import a_batch
from documents import ROOT
from gateway_rig import CHAT as CHAT_URL
from gateway_rig import MODELS, requests
from headrace.api.asking import RequestState
from headrace.api.gateway import ServedModels
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.httpapi.operation import JSON
from headrace.core.httpapi.operations import OPERATIONS
from laptop import PATIENCE_SECONDS
from open_house import House, open_house

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
COMPLETE = ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED
METHODS = {"get", "post", "put", "patch", "delete"}
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
pytestmark = pytest.mark.xdist_group("openapi")


CHAT: dict[str, Any] = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}


@dataclass(frozen=True)
class Known:
    """Things that are there, each named again and again."""

    house: House
    files: Iterator[str]
    batches: Iterator[str]
    requests: Iterator[str]

    def put_into(self, case: Case[Any]) -> None:
        """Make a request ask for something that is there."""
        found = {"file_id": self.files, "batch_id": self.batches, "request_id": self.requests}
        case.path_parameters = {name: next(found[name]) for name in case.path_parameters or {}}
        body = case.body if isinstance(case.body, dict) else {}
        if case.path == "/v1/requests":
            case.body, case.media_type = {**body, **CHAT}, JSON
        elif case.path == "/v1/batches" and case.method == "POST":
            good: dict[str, Any] = {"input_file_id": next(self.files), "endpoint": CHAT_URL, "completion_window": "24h"}
            case.body, case.media_type = {**good, "metadata": body.get("metadata")}, JSON
        elif case.path == "/v1/stream":
            case.query = {**(case.query or {}), "id": [next(self.requests)]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture(scope="module")
def known(house: House) -> Known:
    client = OpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0)
    files = [client.files.create(file=("in.jsonl", requests(3)), purpose="batch").id for _ in range(8)]
    batches = ["batch_reading", "batch_done", "batch_refused"]
    house.batch(a_batch("reading"))
    house.batch(a_batch("done").validated(0).with_condition(*COMPLETE))
    house.batch(a_batch("refused").with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.INPUT_INVALID))
    ended = [house.ended(state, number) for number, state in enumerate([*RequestState][2:] * 3)]
    return Known(house, cycle(files), cycle(batches), cycle(ended))


@SCHEMA.parametrize()
@settings(max_examples=40)
def test_answers_are_those_of_the_document(case: Case[Any], house: House) -> None:
    case.call_and_validate(base_url=house.url, checks=CHECKS, timeout=PATIENCE_SECONDS)


@SCHEMA.include(path_regex="{|/v1/requests|/v1/batches|/v1/stream").parametrize()
@settings(max_examples=30)
def test_answers_about_what_is_there_are_those_of_the_document(case: Case[Any], known: Known) -> None:
    known.put_into(case)
    case.call_and_validate(base_url=known.house.url, checks=CHECKS[:-1], timeout=PATIENCE_SECONDS)


def test_every_route_of_a_gateway_is_in_the_document(tmp_path: Path) -> None:
    with open_house(tmp_path) as opened:
        told = {path: {*map(str.upper, methods.keys() & METHODS)} for path, methods in DOCUMENT["paths"].items()}
        sockets = {path for path, methods in DOCUMENT["paths"].items() if "x-websocket" in methods.get("get", {})}
        answered = opened.methods
        assert {path for path, methods in answered.items() if "WEBSOCKET" in methods} == sockets
        assert {path: methods - {"WEBSOCKET"} for path, methods in answered.items()} == told
        with urlopen(f"{opened.url}/openapi.json") as answer:
            assert json.load(answer) == DOCUMENT


def test_gateway_without_routes_tells_of_what_it_answers_alone(tmp_path: Path) -> None:
    with (
        open_house(tmp_path, ServedModels.parse({"models": MODELS})) as opened,
        urlopen(f"{opened.url}/openapi.json") as answer,
    ):
        told = json.load(answer)
    assert "/v1/batches" in told["paths"]
    assert "/v1/requests" not in told["paths"]
    assert "RequestObject" not in told["components"]["schemas"]


def test_method_that_is_not_answered_is_told_of_those_that_are(house: House) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{house.url}/v1/files", method="PUT"))
    with refused.value as answer:
        assert {*answer.headers["allow"].split(", ")} == {"GET", "HEAD", "POST"}


def test_document_is_one_of_openapi() -> None:
    SCHEMA.validate()


def test_operations_have_names_of_their_own() -> None:
    names = [one.name for one in OPERATIONS]
    assert len({*names}) == len(names)
