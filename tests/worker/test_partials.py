"""What a worker of a warm pool says of unfinished answers: now and then, what is new alone, and only where it is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from headrace.api.records import Request
from headrace.api.worker import parse_partial
from headrace_worker.engines.base import Engine, Unfinished, Work
from headrace_worker.feed import Feed
from headrace_worker.partials import Partials


@dataclass
class Written:
    """An engine that says what the test has it say, and a feed that keeps what is said."""

    texts: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)
    now: float = 100.0

    def unfinished(self) -> list[Unfinished]:
        return [
            Unfinished(Work(at, Request(name, {}), 1), text, len(text))
            for at, (name, text) in enumerate(self.texts.items())
        ]

    def say(self, lines: bytes) -> None:
        for line in lines.splitlines():
            partial = parse_partial(line)
            assert partial is not None
            self.said.append((partial.custom_id, partial.text))

    def partials(self) -> Partials:
        return Partials(cast("Engine", self), cast("Feed", self), lambda: self.now)


def test_partials_are_said_when_it_is_time_and_when_there_is_more() -> None:
    world = Written({"a": "x", "b": ""})
    partials = world.partials()
    partials.say()
    assert world.said == [], "nobody has asked for them"
    partials.every(500)
    partials.say()
    assert world.said == [("a", "x")], "of one that has only special tokens there is nothing to read"
    world.texts["a"] = "xy"
    world.now += 0.4
    partials.say()
    assert world.said[1:] == []
    world.now += 0.1
    partials.say()
    world.now += 0.5
    partials.say()
    assert world.said[1:] == [("a", "xy")]
    world.texts = {"a": "x"}  # it is written anew
    world.now += 0.5
    partials.say()
    assert world.said[2:] == [("a", "x")]
    partials.every(None)
    world.texts = {"c": "z"}
    world.now += 9
    partials.say()
    assert world.said[3:] == []


def test_engine_that_knows_of_no_partials_is_not_asked() -> None:
    world = Written()
    silent = Partials(cast("Engine", object()), cast("Feed", world), lambda: world.now)
    silent.every(1)
    silent.say()
    assert world.said == []
