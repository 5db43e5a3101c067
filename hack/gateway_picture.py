"""`make gateway-picture`: docs/images/gateway.png, the status page of a gateway as a real browser shows it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from builders import a_batch
from headrace.api.asking import ClosedWindow, QueuedRequest, RequestState
from open_house import House, open_house

PICTURE = Path(__file__).parents[1] / "docs/images/gateway.png"
ACCEPTED = time.time_ns() // 1_000_000 - 4000


def fill(house: House) -> None:
    """Put something of everything there."""
    asked = [QueuedRequest(id=f"req_quick_{n:024x}", accepted=ACCEPTED + n, tokens=9, body={}) for n in range(11)]
    house.store.queues["quick"] = asked[7:]
    for at, members in enumerate((asked[:6], asked[6:7])):
        name = f"quick-{at}d41c9e07a"
        house.store.closed[name] = ClosedWindow(batch=name, route="quick", closed=ACCEPTED, members=tuple(members))
        house.batch(a_batch(name).validated(len(members)))
    house.ended(RequestState.FAILED, 1)
    house.ended(RequestState.EXPIRED, 2, route="slow")
    house.batch(a_batch("reviews").validated(1000))


def main() -> int:
    """Returns the exit code."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("there is no Chromium here: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, open_house(Path(folder)) as house, sync_playwright() as driver:
        fill(house)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(f"{house.url}/")
        page.screenshot(path=PICTURE, full_page=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
