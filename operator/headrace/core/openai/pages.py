"""Lists in pages: newest first, each page beginning after the last object of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.api.base import JsonObject
from headrace.core.openai.errors import bad_request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for."""

    limit: int
    after: str | None = None
    """Id of the object before the first one."""
    ascending: bool = False
    """Whether the oldest come first."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One part of a list."""

    items: tuple[T, ...]
    has_more: bool


def window(query: Mapping[str, str], *, most: int, default: int) -> Window:
    """What a query string asks for. Raises `ApiError`."""
    asked = query.get("limit", str(default))
    limit = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0
    if not 1 <= limit <= most:
        raise bad_request(f"limit must be a number from 1 to {most}, not {asked[:20]}", "limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise bad_request(f"order must be asc or desc, not {order[:20]}", "order")
    return Window(limit, query.get("after") or None, ascending=order == "asc")


def page(newest_first: Sequence[T], asked: Window, id_of: Callable[[T], str]) -> Page[T]:
    """That part of a list. Raises `ApiError` when there is nothing of the id to begin after."""
    items = newest_first[::-1] if asked.ascending else newest_first
    begin = 0
    if asked.after is not None:
        places = (place for place, item in enumerate(items, 1) if id_of(item) == asked.after)
        begin = next(places, 0)
        if not begin:
            raise bad_request(
                f"after must be the id of an object of this list; there is no {asked.after[:80]}", "after"
            )
    return Page(tuple(items[begin : begin + asked.limit]), has_more=begin + asked.limit < len(items))


def page_object(data: Sequence[JsonObject], *, has_more: bool) -> JsonObject:
    """The body of the answer."""
    ids = [one["id"] for one in data]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return {"object": "list", "data": list(data), **ends, "has_more": has_more}
