"""Tables of known instants, in three zones and over both changes of the clock; and what is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.schedule.cron import BadCron, Cron, parse

BERLIN, NEW_YORK, LORD_HOWE = map(ZoneInfo, ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe"))


def instants(expression: str, after: str, zone: ZoneInfo, count: int) -> list[str]:
    """The next ones, in UTC."""
    moment = datetime.fromisoformat(f"{after}+00:00")
    found = islice(parse(expression, "default/reviews").after(moment, zone), count)
    return [instant.strftime("%m-%d %H:%M") for instant in found]


@pytest.mark.parametrize(
    ("expression", "after", "zone", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            "2026-03-28T00:00",
            BERLIN,
            ["03-28 01:30", "03-30 00:30"],
            id="Berlin in spring has no half past two",
        ),
        pytest.param(
            "30 2 * * *",
            "2026-10-24T12:00",
            BERLIN,
            ["10-25 00:30", "10-25 01:30", "10-26 01:30"],
            id="Berlin in autumn has half past two twice",
        ),
        pytest.param(
            "0 * * * *",
            "2026-10-24T23:30",
            BERLIN,
            ["10-25 00:00", "10-25 01:00", "10-25 02:00"],
            id="each hour in Berlin is each hour of the world, also in autumn",
        ),
        pytest.param(
            "30 2 * * *",
            "2026-03-07T12:00",
            NEW_YORK,
            ["03-09 06:30", "03-10 06:30"],
            id="New York in spring has no half past two",
        ),
        pytest.param(
            "30 1 * * *",
            "2026-11-01T00:00",
            NEW_YORK,
            ["11-01 05:30", "11-01 06:30", "11-02 06:30"],
            id="New York in autumn has half past one twice",
        ),
        pytest.param(
            "15 2 * * *",
            "2026-10-03T00:00",
            LORD_HOWE,
            ["10-04 15:15", "10-05 15:15"],
            id="Lord Howe in spring leaves out half an hour",
        ),
        pytest.param(
            "45 1 * * *",
            "2026-04-04T00:00",
            LORD_HOWE,
            ["04-04 14:45", "04-04 15:15", "04-05 15:15"],
            id="Lord Howe in autumn has a quarter to two twice, half an hour apart",
        ),
        pytest.param(
            "0 0 29 2 *", "2027-01-01T00:00", ZoneInfo("UTC"), ["02-29 00:00"], id="the 29th of February comes"
        ),
        pytest.param(
            "0 12 13 * fri",
            "2026-02-01T00:00",
            ZoneInfo("UTC"),
            ["02-06 12:00", "02-13 12:00", "02-20 12:00"],
            id="the 13th or a Friday: one of them is enough",
        ),
        pytest.param("@weekly", "2026-01-01T00:00", ZoneInfo("UTC"), ["01-04 00:00"], id="a macro"),
        pytest.param("0 0 * * 7", "2026-01-01T00:00", ZoneInfo("UTC"), ["01-04 00:00"], id="Sunday as seven"),
    ],
)
def test_after_gives_what_the_wall_clock_shows(
    expression: str, after: str, zone: ZoneInfo, expected: list[str]
) -> None:
    assert instants(expression, after, zone, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        pytest.param("61 * * * *", "the minute is '61'", id="no such minute"),
        pytest.param("* * * *", "must have five fields", id="four fields"),
        pytest.param("0 0 0 * * *", "it has 6", id="with seconds"),
        pytest.param("0 0 30 2 *", "never fires: no month that it names has a day 30", id="the 30th of February"),
        pytest.param("0 0 31 4,6,9,11 *", "never fires", id="the 31st of short months"),
        pytest.param("@every 1h", "@every 1h is not known", id="a macro that is not a cron"),
        pytest.param("0 0 L * *", "Kubernetes knows no L", id="the last day"),
        pytest.param("0 0 * * 5#2", "use numbers", id="the second Friday"),
        pytest.param("0 0 * noon *", "the month is 'noon'", id="no such month"),
        pytest.param("TZ=UTC 0 0 * * *", "it has 6", id="a zone in the expression"),
    ],
)
def test_parse_refuses_what_means_nothing(expression: str, said: str) -> None:
    with pytest.raises(BadCron, match=re.escape(said)):
        parse(expression, "default/reviews")


def test_text_is_plain_cron() -> None:
    assert parse("*/15 8-10 * jan-mar MON", "x").text == "0,15,30,45 8,9,10 * 1,2,3 1"
    assert parse("@hourly", "x").text == "0 * * * *"


def test_h_spreads_schedules_and_stays_what_it_is() -> None:
    minutes = [parse("H * * * *", f"default/s{number}").fields[0] for number in range(600)]
    assert minutes == [parse("H * * * *", f"default/s{number}").fields[0] for number in range(600)]
    most = max(minutes.count(minute) for minute in minutes)
    assert most <= 25, "ten a minute, if they were spread perfectly"


@settings(deadline=None)
@given(
    expression=st.sampled_from(["* * * * *", "30 2 * * *", "0 */3 * * 1-5", "59 23 31 * *", "5,35 * 1 1 *"]),
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE]),
    moment=st.integers(946_684_800, 2_145_830_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_before_and_after_see_the_same_instants(expression: str, zone: ZoneInfo, moment: datetime) -> None:
    cron: Cron = parse(expression, "default/reviews")
    following = list(islice(cron.after(moment, zone), 4))
    assert following == sorted(set(following))
    assert following[0] > moment
    back = list(islice(cron.before(following[3] + timedelta(seconds=1), zone), 4))
    assert back == following[::-1]
