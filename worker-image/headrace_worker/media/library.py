"""The bytes of media, wherever a record says that they are: in itself, on the web, in a store, or beside the input."""

from __future__ import annotations

from functools import cached_property
from urllib.parse import unquote, urlsplit

from headrace.api.content import data_of
from headrace.api.input import Input
from headrace.api.media import Media
from headrace_worker.media.errors import MediaError, not_allowed, too_large, unreachable
from headrace_worker.media.web import Web
from headrace_worker.stores import join, open_store
from headrace_worker.stores.base import NotFound, StoreError, Unreachable
from headrace_worker.stores.patterns import fixed_part, is_glob


def folder_of(uri: str) -> str:
    """The folder that relative URLs start from: the one that `input.uri` names or matches in, else the one that its file is in.

    >>> folder_of("s3://in/2026/events.jsonl")
    's3://in/2026'
    >>> folder_of("s3://in/2026/"), folder_of("s3://in/2026/*.jsonl")
    ('s3://in/2026', 's3://in/2026')
    """
    if is_glob(uri):
        return fixed_part(uri).rstrip("/")
    return uri.rpartition("/")[0]


class MediaLibrary:
    """Reads media for the records of one input; may be used by several threads at once."""

    def __init__(self, spec: Input) -> None:
        self._media = spec.media or Media()
        self._folder = folder_of(spec.uri or "")

    @cached_property
    def _web(self) -> Web:
        return Web(self._media)

    def read(self, url: str) -> bytes:
        """The bytes at a URL that `headrace.api.content` has let through. Raises `MediaError`."""
        scheme = urlsplit(url[:64]).scheme
        if scheme in ("http", "https"):
            return self._web.fetch(url)
        if scheme == "data":
            return self._measured(data_of(url))
        if scheme == "":
            return self._stored(join(self._folder, url))
        if not self._is_allowed(url):
            raise not_allowed(
                "lies outside the folder of the input, and input.media.allowedUris does not name its folder"
            )
        return self._stored(url)

    def _is_allowed(self, url: str) -> bool:
        places = (f"{self._folder}/", *self._media.allowed_uris)
        return ".." not in unquote(url).split("/") and any(url.startswith(place) for place in places)

    def _stored(self, uri: str) -> bytes:
        try:
            with open_store(uri).open(uri) as stream:
                return self._measured(stream.read(self._media.max_bytes + 1))
        except NotFound as error:
            raise unreachable("leads to nothing: there is no such object", retriable=False) from error
        except (StoreError, IsADirectoryError) as error:
            raise unreachable(f"cannot be read: {error}", retriable=False) from error
        except Unreachable as error:
            raise unreachable(f"cannot be read: {error}", retriable=True) from error

    def _measured(self, data: bytes) -> bytes:
        most = self._media.max_bytes
        if len(data) > most:
            raise too_large(f"more than {most}", most)
        return data


__all__ = ["MediaError", "MediaLibrary", "folder_of"]
