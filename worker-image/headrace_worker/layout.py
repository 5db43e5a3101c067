"""Names of everything in the output folder of a batch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from headrace.api.worker import Shard

_JOURNAL = re.compile(r"a(\d+)\.journal$")
_ID = "batch_req_"
_COMMIT = re.compile(r"/(\d{5,})(?:\.r(\d+))?/commit\.json$")


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """Names of what belongs to one shard. Paths are relative to the output folder, URIs are whole."""

    output_uri: str
    index: int
    revision: int = 0
    """How often the shard was committed before, see `headrace_worker.revisions`."""

    def uri(self, path: str) -> str:
        """The URI of a path in the output folder."""
        return f"{self.output_uri.rstrip('/')}/{path}"

    @property
    def private(self) -> str:
        """URI of the folder of the journals and the commit; it ends with a slash."""
        return self.uri(f"_headrace/shards/{self._name}/")

    @property
    def commit(self) -> str:
        """URI of the shard's manifest."""
        return f"{self.private}commit.json"

    def journal(self, attempt: int) -> str:
        """URI of the journal of one attempt."""
        return f"{self.private}a{attempt}.journal"

    def outputs(self, attempt: int, ending: str) -> tuple[str, str]:
        """Paths of the results and the errors that one attempt commits."""
        return f"results/{self._name}.a{attempt}{ending}", f"errors/{self._name}.a{attempt}{ending}"

    @property
    def output_patterns(self) -> tuple[str, str]:
        """Globs for the results and the errors of all attempts."""
        return self.uri(f"results/{self._name}.a*"), self.uri(f"errors/{self._name}.a*")

    @property
    def older(self) -> tuple[ShardFolder, ...]:
        """The folders of the revisions before this one."""
        return tuple(replace(self, revision=revision) for revision in range(self.revision))

    @property
    def _name(self) -> str:
        return f"{self.index:05}" if not self.revision else f"{self.index:05}.r{self.revision}"


def journal_attempt(uri: str) -> int | None:
    """Which attempt a journal is of; None when the URI is no journal's."""
    found = _JOURNAL.search(uri)
    return int(found[1]) if found else None


def committed_folder(output_uri: str, uri: str) -> ShardFolder | None:
    """The folder of the shard that a commit with this URI is of; None when the URI is no commit's."""
    found = _COMMIT.search(uri)
    return ShardFolder(output_uri, int(found[1]), int(found[2] or 0)) if found else None


def record_id(shard: Shard, position: int) -> str:
    """The `id` of a record's line in the output: its number in the whole input, so that a rerun gives the same bytes."""
    return output_id(shard.first_record + position)


def output_id(number: int) -> str:
    """The `id` of the line of the record of that number, from 0."""
    return f"{_ID}{number:012}"


def record_number(line_id: str) -> int:
    """The number of the record whose line has that `id`. Raises `ValueError`."""
    return int(line_id.removeprefix(_ID))
