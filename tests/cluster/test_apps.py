"""The two applications among the examples on a real control plane: applied as their page says, and asked as whoever uses them asks.

Real workers load real models. What they answer is what the same applications say on one machine, as their pages tell it and
`tests/e2e/test_apps.py` sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from e2e.test_apps import IMAGES, TEXTS, app, ask, at_gateway, needs
from gateway_rig import Gateway
from headrace.api.base import JsonObject
from headrace.shells.kube.resources import BATCHES, FAN_OUTS, SCHEDULES

from .apps_site import EXAMPLES, Applications, answers, asked
from .messages import Say
from .operator_rig import started_plane

pytestmark = [pytest.mark.cluster, pytest.mark.model, pytest.mark.xdist_group("operator"), needs(IMAGES + TEXTS)]

DOCUMENTS = sorted((EXAMPLES / "data" / "documents").glob("*.txt"))
PHOTOS = [EXAMPLES / "data" / "events" / name for name in ("cat.jpg", "coffee.jpg")]


@pytest.fixture
def applications(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Iterator[Applications]:
    """On a control plane of their own, for the files say in which namespace all is."""
    with started_plane(tmp_path_factory.mktemp("plane"), say) as plane:
        made = Applications(plane, tmp_path_factory.mktemp("apps"), say)
        yield made
        made.close()


def last_tick(minute: int) -> datetime:
    """The last time that the clock showed that minute of an hour."""
    now = datetime.now(UTC)
    last = now.replace(minute=minute, second=0, microsecond=0)
    return last if last <= now else last - timedelta(hours=1)


def conditions(obj: JsonObject) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in obj.get("status", {}).get("conditions", ())}


def in_one_file(gateway: Gateway) -> dict[str, str]:
    """Summaries of all documents, asked for by a file; by name."""
    question = "Summarise this document in one sentence:\n\n"
    lines = [
        {
            "custom_id": file.name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "smollm2-135m-instruct",
                "messages": [{"role": "user", "content": question + file.read_text()}],
            },
        }
        for file in DOCUMENTS
    ]
    batch = gateway.batch("".join(json.dumps(line) + "\n" for line in lines).encode())
    done = gateway.until(batch.id, "completed", "failed")
    assert done.output_file_id is not None, done
    found: list[dict[str, Any]] = [
        json.loads(line) for line in gateway.client.files.content(done.output_file_id).text.splitlines()
    ]
    return {
        line["custom_id"]: " ".join(line["response"]["body"]["choices"][0]["message"]["content"].split())
        for line in found
    }


def test_the_applications_answer_on_a_cluster_as_they_do_on_one_machine(
    applications: Applications, tmp_path: Path
) -> None:
    site, rig = applications, applications.rig
    hour = last_tick(0)
    site.place(written=hour - timedelta(minutes=5))
    gateway = site.install()
    site.begin()
    fan_out, run = site.tick("arrivals", hour), site.tick("photos-hourly", last_tick(30))

    summaries, photos = asked(gateway, "summarise", *DOCUMENTS), asked(gateway, "classify", *PHOTOS)
    desk = app(tmp_path, "summaries")
    with at_gateway(desk) as url:
        local = dict(line.split(": ", 1) for line in ask(desk, url, "summarise", *map(str, DOCUMENTS)))
    assert answers(photos) == {
        "cat.jpg": "Egyptian Mau 0.39, a cat having a striped coat 0.36, tabby cat 0.18",
        "coffee.jpg": "espresso 0.87, consomme 0.05, tea cup 0.02",
    }
    assert answers(summaries) == local
    assert in_one_file(gateway) == local

    def over(name: str) -> bool:
        return conditions(rig.get(BATCHES, name)).get("Complete", ("", ""))[0] == "True"

    rig.eventually(lambda: over("photos-reference"), "the reference")
    rig.eventually(lambda: any(it["metadata"]["name"] == run for it in rig.all(BATCHES)) and over(run), run)
    found = rig.get(BATCHES, run)
    assert found["status"]["evaluation"]["scores"]["accuracy"] == "0.5000"
    assert conditions(found)["DataDrift"] == ("True", "DistributionChanged")
    (drift,) = [one for one in found["status"]["conditions"] if one["type"] == "DataDrift"]
    assert drift["message"] == "ErrorRate has a PSI of 2.1436, above 0.5579"
    rig.eventually(
        lambda: conditions(rig.get(SCHEDULES, "photos-hourly")).get("Suspended") == ("True", "PausedByDrift"), "paused"
    )

    rig.eventually(
        lambda: conditions(rig.get(FAN_OUTS, fan_out)).get("Complete", ("", ""))[0] == "True", "the summaries"
    )
    joined = site.lines(fan_out)
    assert sorted(joined) == [file.name for file in DOCUMENTS]
    assert joined["headrace.txt"]["headrace"]["winner"] == "for-beginners"
