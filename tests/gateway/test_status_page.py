"""The status page: in a real browser, and as what it answers."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from builders import a_batch
from gateway_rig import MODELS
from headrace.api.asking import RequestState
from headrace.api.gateway import ServedModels
from headrace.core.openai.errors import ApiError
from headrace.core.statuspage import MOST_ROWS
from headrace.core.tenancy.keys import bearer
from headrace.gateway.queues.store import StoreAway
from laptop import eventually
from open_house import House, open_house

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<script>document.title='taken'</script>"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as opened:
        yield opened


def filled(house: House, count: int = 3) -> None:
    """There is something of everything, and something evil."""
    for number in range(count):
        house.ended(RequestState.FAILED, number, why=EVIL)
    house.batch(a_batch("reviews").with_spec(model={"name": EVIL}).validated(20))


def test_page_says_how_things_stand_and_lets_nothing_in(house: House) -> None:
    filled(house)
    message = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}
    assert httpx2.post(f"{house.url}/v1/requests", json=message).status_code == 202
    page = httpx2.get(f"{house.url}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "batch_reviews" in page.text
    assert "<caption>Where single requests gather" in page.text
    assert "Nothing is at work." in page.text
    assert httpx2.get(f"{house.url}/status.css").headers["content-type"].startswith("text/css")


def test_page_of_an_empty_gateway_without_routes(tmp_path: Path) -> None:
    with open_house(tmp_path, ServedModels.parse({"models": MODELS})) as empty:
        page = httpx2.get(f"{empty.url}/").text
    assert "only whole batches are taken here" in page
    assert "<table" not in page


def test_page_counts_the_rows_that_it_leaves_out(house: House) -> None:
    filled(house, 70)
    page = httpx2.get(f"{house.url}/").text
    assert page.count("the model said no") + page.count("&lt;script") >= 50
    assert "20 more are not shown" in page


def test_page_shows_what_has_ended_last_and_nothing_of_another_tenant(house: House) -> None:
    names = [house.ended(RequestState.COMPLETED, number) for number in range(MOST_ROWS + 10)]
    elsewhere = house.ended(RequestState.COMPLETED, 999, namespace="another")
    eventually(lambda: names[-1] in httpx2.get(f"{house.url}/").text)
    page = httpx2.get(f"{house.url}/").text
    shown = [name for name in reversed(names) if name in page]
    assert shown == names[:9:-1]
    assert [page.index(name) for name in shown] == sorted(page.index(name) for name in shown), "the last first"
    assert elsewhere not in page


def test_page_is_there_while_the_store_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StoreAway("no answer")

    filled(house)
    monkeypatch.setattr(house.store, "letters", away)
    page = httpx2.get(f"{house.url}/")
    assert page.status_code == 200
    assert 'role="alert"' in page.text
    assert "batch_reviews" in page.text


def test_page_in_a_browser(house: House) -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed here")
    playwright = pytest.importorskip("playwright.sync_api")
    filled(house)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            complaints: list[str] = []
            for scheme in ("light", "dark"):
                page = browser.new_page(color_scheme=scheme)
                page.on("console", lambda said: complaints.append(said.text))
                page.goto(f"{house.url}/")
                assert page.title() == "Headrace gateway", "no script of anybody has run"
                assert [one.inner_text() for one in page.query_selector_all("h2")] == [
                    "Routes",
                    "Requests at work",
                    "Requests that have ended",
                    "Dead letters",
                    "Batches",
                ]
                paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (paper == "rgb(255, 255, 255)") == (scheme == "light"), "the stylesheet is let in"
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                    "wide tables scroll by themselves"
                )
                page.close()
            assert complaints == []
        finally:
            browser.close()


def test_key_of_a_browser_is_its_password_under_any_name() -> None:
    assert bearer(f"Basic {b64encode(b'anybody:hrk_a:b').decode()}") == "hrk_a:b"
    with pytest.raises(ApiError):
        bearer("Basic nonsense!")
