"""What the gateway says of itself."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from gateway_rig import MODELS
from headrace.api.gateway import ServedModels
from headrace.gateway.queues.store import StoreAway
from open_house import open_house


async def away(*_: object) -> None:
    raise StoreAway("no answer")


def test_gateway_is_not_ready_while_its_store_is_away_and_need_not_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_house(tmp_path) as house:
        assert [httpx2.get(f"{house.url}{path}").status_code for path in ("/healthz", "/readyz")] == [200, 200]
        monkeypatch.setattr(house.stores, "position", away)
        assert httpx2.get(f"{house.url}/healthz").status_code == 200
        refused = httpx2.get(f"{house.url}/readyz")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_gateway_for_whole_batches_alone_needs_no_store(tmp_path: Path) -> None:
    with open_house(tmp_path, ServedModels.parse({"models": MODELS})) as house:
        assert httpx2.get(f"{house.url}/readyz").json() == {"status": "ok"}
