"""Claiming, resuming, fencing and committing a shard: every record exactly once, whoever dies where."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.output import OutputFile
from headrace.api.worker import BatchIdentity
from headrace_worker.commit import ShardCommit
from headrace_worker.errors import Drained, JobFailed, ShardFailed
from headrace_worker.journal import ShardJournal
from headrace_worker.ledger import Entry, Ledger, Place, Used, begun_line, entry_line, entry_of, seal, unseal
from headrace_worker.stores.base import AlreadyExists, Store
from headrace_worker.stores.local import LocalLog, LocalStore, file_uri
from worker_rig import HEADER, Died, MortalStore, a_shard

RECORDS = 10


def an_entry(position: int, by: str = "") -> Entry:
    """Each third record fails; the line says who has written it."""
    line = orjson.dumps({"custom_id": f"r{position}", "by": by}, option=orjson.OPT_APPEND_NEWLINE)
    return Entry(position, line, failed=position % 3 == 0, prompt_tokens=10, completion_tokens=position)


def entries(positions: Iterable[int], by: str = "") -> list[Entry]:
    return [an_entry(position, by) for position in positions]


@pytest.fixture
def output(tmp_path: Path) -> str:
    return file_uri(str(tmp_path / "out"))


def claim(output: str, store: Store | None = None, records: int = RECORDS) -> ShardJournal:
    claimed = ShardJournal.claim(store or LocalStore(), output, a_shard(records), HEADER)
    assert isinstance(claimed, ShardJournal)
    return claimed


def finished(journal: ShardJournal) -> list[int]:
    return [position for position in range(len(journal.ledger)) if journal.ledger.is_finished(position)]


def files_below(output: str) -> list[str]:
    return sorted(found.uri.removeprefix(output + "/") for found in LocalStore().list(output))


def read_lines(output: str, file: OutputFile) -> list[bytes]:
    return LocalStore().read(f"{output}/{file.path}").splitlines(keepends=True)


def ids_of(output: str, commit: ShardCommit) -> list[str]:
    lines = read_lines(output, commit.results) + read_lines(output, commit.errors)
    return sorted(orjson.loads(line)["custom_id"] for line in lines)


ALL_IDS = sorted(f"r{position}" for position in range(RECORDS))


# claiming and resuming


def test_claim_of_a_fresh_shard_is_attempt_one_with_nothing_done(output: str) -> None:
    with claim(output) as journal:
        assert journal.attempt == 1
        assert journal.ledger.pending == RECORDS


def test_claim_adopts_what_earlier_attempts_have_finished(output: str) -> None:
    with claim(output) as first:
        first.append(entries([4, 2]))
    with claim(output) as second:
        second.append(entries([7]))
    with claim(output) as third:
        assert third.attempt == 3
        assert finished(third) == [2, 4, 7]
        assert third.ledger.counts.completion_tokens == 13
        assert third.durable == third.ledger.counts


def test_claim_of_a_committed_shard_is_its_commit(output: str) -> None:
    with claim(output) as journal:
        journal.append(entries(range(RECORDS)))
        commit = journal.commit()
    assert ShardJournal.claim(LocalStore(), output, a_shard(RECORDS), HEADER) == commit


def test_claim_of_another_batchs_shard_is_refused(output: str) -> None:
    claim(output).append(entries([1]))
    other = HEADER.model_copy(update={"batch": BatchIdentity(namespace="default", name="other", uid="uid-other")})
    with pytest.raises(JobFailed, match=r"OutputInUse: .*belongs to the batch default/reviews .*output\.uri"):
        ShardJournal.claim(LocalStore(), output, a_shard(RECORDS), other)


def test_claim_of_a_shard_that_was_cut_otherwise_is_refused(output: str) -> None:
    claim(output).append(entries([1]))
    with pytest.raises(JobFailed, match="PlanChanged"):
        ShardJournal.claim(LocalStore(), output, a_shard(RECORDS, sha256="1" * 64), HEADER)


def test_claim_with_a_damaged_head_says_which_file(output: str) -> None:
    LocalStore().put(f"{output}/_headrace/shards/00000/a1.journal", b"rubbish\n")
    with pytest.raises(ShardFailed, match=r"JournalDamaged.*a1\.journal"):
        claim(output)


def test_claim_with_a_missing_journal_gives_up(output: str) -> None:
    claim(output).append(entries([1]))
    claim(output).append(entries([2]))
    LocalStore().delete(f"{output}/_headrace/shards/00000/a1.journal")
    with pytest.raises(ShardFailed, match="JournalMissing"):
        claim(output)


def test_claim_of_a_torn_journal_keeps_exactly_the_whole_lines(output: str, tmp_path: Path) -> None:
    with claim(output) as first:
        first.append(entries(range(4)))
    path = tmp_path / "out/_headrace/shards/00000/a1.journal"
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:size])
        with claim(output) as second:
            assert len(finished(second)) == sum(end <= size for end in ends[1:5])
        path.with_name("a2.journal").unlink()


def test_what_a_zombie_appends_after_the_claim_never_counts(output: str) -> None:
    zombie = claim(output)
    zombie.append(entries([1], by="zombie"))
    with claim(output) as second:
        zombie.append(entries([2], by="zombie"))
        second.append(entries([2], by="second"))
    with claim(output) as third:
        assert finished(third) == [1, 2]
        assert third.ledger.place(1).attempt == 1
        assert third.ledger.place(2).attempt == 2


# lines


@given(st.binary(max_size=200), st.data())
def test_a_damaged_line_is_never_taken_for_another(payload: bytes, data: st.DataObject) -> None:
    line = entry_line(Entry(3, payload.replace(b"\n", b" ") + b"\n", failed=True, prompt_tokens=1))
    at = data.draw(st.integers(0, len(line) - 1))
    value = data.draw(st.integers(0, 255))
    damaged = line[:at] + bytes([value]) + line[at + 1 :]
    assert entry_of(damaged) == (entry_of(line) if damaged == line else None)


@given(st.binary(max_size=200), st.integers(0, 10**9), st.booleans(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_entry_of_is_the_reverse_of_entry_line(
    payload: bytes, position: int, failed: bool, prompt_tokens: int, completion_tokens: int
) -> None:
    entry = Entry(position, payload.replace(b"\n", b" ") + b"\n", failed, prompt_tokens, completion_tokens)
    assert entry_of(entry_line(entry)) == entry


def test_replay_leaves_out_lines_of_a_kind_that_it_does_not_know() -> None:
    ledger = Ledger(3)
    line = seal(b"Z 1 2 3\n")
    ledger.replay(line, Place(1, 0))
    assert unseal(line) == b"Z 1 2 3\n"
    assert ledger.pending == 3


def test_tries_do_not_overflow() -> None:
    ledger = Ledger(2)
    for _ in range(300):
        ledger.begin([1])
    assert (ledger.tries(0), ledger.tries(1)) == (0, 255)
    assert ledger.counts.reprocessed == 299


def test_begun_line_is_replayed() -> None:
    ledger = Ledger(3)
    ledger.replay(begun_line([0, 2]), Place(1, 0))
    assert [ledger.tries(position) for position in range(3)] == [1, 0, 1]


# counting


def test_work_that_was_lost_is_counted_when_it_is_begun_again(output: str) -> None:
    first = claim(output)
    first.begin(range(5))
    first.append(entries([0, 1]))
    with claim(output) as second:
        assert [second.ledger.tries(position) for position in range(6)] == [1, 1, 1, 1, 1, 0]
        assert second.ledger.counts.reprocessed == 0
        second.begin([2, 3, 4, 5])
        assert second.ledger.counts.reprocessed == 3
    with claim(output) as third:
        assert third.ledger.counts.reprocessed == 3
        third.append(entries(range(RECORDS)))
        assert third.commit().reprocessed == 3


def test_what_was_used_is_the_sum_over_attempts(output: str) -> None:
    with claim(output) as first:
        first.note(Used(gpu_seconds=2.5, batches=3, batched_records=20))
        first.sync()
    with claim(output) as second:
        assert second.ledger.used == Used(gpu_seconds=2.5, batches=3, batched_records=20)


def test_records_count_only_once_they_are_durable(output: str) -> None:
    with claim(output) as journal:
        journal.append(entries([1, 2]))
        assert journal.durable.succeeded == 0
        journal.sync()
        assert journal.durable.succeeded == 2


@pytest.mark.parametrize(
    ("records", "seconds", "synced"),
    [
        pytest.param(1, 0.5, False, id="a few records wait for the second to be over"),
        pytest.param(1, 1.0, True, id="a second is over"),
        pytest.param(16, 0.2, True, id="sixteen records have gathered"),
        pytest.param(16, 0.05, False, id="but never more often than ten times a second"),
    ],
)
def test_maybe_sync_syncs_when(output: str, records: int, seconds: float, *, synced: bool) -> None:
    with claim(output, records=20) as journal:
        journal.maybe_sync(100.0)
        journal.append(entries(range(records)))
        assert journal.maybe_sync(100.0 + seconds) is synced
        assert (journal.durable.failed > 0) is synced


@pytest.mark.parametrize(
    ("pause", "records", "seconds", "synced"),
    [
        pytest.param(0.5, 16, 0.4, False, id="sixteen records wait for a pause that is longer"),
        pytest.param(0.5, 16, 0.5, True, id="sixteen records and the pause is over"),
        pytest.param(3.0, 1, 2.0, False, id="a few records wait for the pause"),
        pytest.param(3.0, 1, 3.0, True, id="a few records and the pause is over"),
        pytest.param(0.5, 0, 4.0, False, id="nothing new can wait ten pauses"),
        pytest.param(0.5, 0, 5.0, True, id="nothing new, and ten pauses are over"),
    ],
)
def test_maybe_sync_keeps_to_the_pause_of_its_log(
    output: str, monkeypatch: pytest.MonkeyPatch, pause: float, records: int, seconds: float, *, synced: bool
) -> None:
    monkeypatch.setattr(LocalLog, "sync_pause", pause)
    with claim(output, records=20) as journal:
        assert journal.maybe_sync(100.0), "what is begun first is known at once"
        journal.append(entries(range(records)))
        assert journal.maybe_sync(100.0 + seconds) is synced


# committing


def test_commit_writes_both_files_in_the_order_of_the_input(output: str) -> None:
    with claim(output) as first:
        first.append(entries([9, 3, 5], by="first"))
    with claim(output) as second:
        second.append(entries([0, 8, 1, 7, 2, 6, 4], by="second"))
        commit = second.commit()
    results, errors = read_lines(output, commit.results), read_lines(output, commit.errors)
    assert results == [an_entry(i, "first" if i in (5,) else "second").line for i in (1, 2, 4, 5, 7, 8)]
    assert errors == [an_entry(i, "first" if i in (9, 3) else "second").line for i in (0, 3, 6, 9)]


def test_commit_says_what_is_in_its_files(output: str) -> None:
    with claim(output) as journal:
        journal.append(entries(range(RECORDS)))
        commit = journal.commit()
    for file in (commit.results, commit.errors):
        data = LocalStore().read(f"{output}/{file.path}")
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.records == len(data.splitlines())
    assert (commit.records.total, commit.records.succeeded, commit.records.failed) == (10, 6, 4)
    assert (commit.usage.prompt_tokens, commit.usage.completion_tokens) == (100, 45)


def test_commit_leaves_nothing_but_the_commit_and_its_files(output: str) -> None:
    LocalStore().put(f"{output}/results/00000.a7.jsonl", b"of a loser\n")
    LocalStore().put(f"{output}/results/00001.a1.jsonl", b"of another shard\n")
    claim(output).append(entries([1]))
    with claim(output) as journal:
        journal.append(entries(range(RECORDS)))
        journal.commit()
    assert files_below(output) == [
        "_headrace/shards/00000/commit.json",
        "errors/00000.a2.jsonl",
        "results/00000.a2.jsonl",
        "results/00001.a1.jsonl",
    ]


def test_commit_of_a_shard_with_records_missing_is_refused(output: str) -> None:
    with claim(output) as journal:
        journal.append(entries(range(RECORDS - 1)))
        with pytest.raises(ValueError, match="1 records of shard 0 are not finished"):
            journal.commit()


def test_commit_of_an_older_attempt_is_fenced_off(output: str) -> None:
    older = claim(output)
    older.append(entries(range(RECORDS), by="older"))
    with claim(output) as newer:
        assert older.fenced()
        assert not newer.fenced()
        with pytest.raises(Drained, match="a newer attempt"):
            older.commit()
        assert newer.commit().attempt == 2


def test_commit_after_another_has_committed_is_the_others(output: str) -> None:
    older = claim(output)
    older.append(entries(range(RECORDS), by="older"))
    with claim(output) as newer:
        commit = newer.commit()
    assert older.commit() == commit
    assert ids_of(output, commit) == ALL_IDS


class Overtaken(MortalStore):
    """A store in which, at some change, another attempt commits before anybody can look."""

    other: ShardJournal | None = None
    committed: ShardCommit | None = None

    def change(self, *_: object, **__: object) -> None:
        self.changes += 1
        if self.changes == self.dies_at and self.other is not None:
            self.other.append(entries(range(RECORDS), by="other"))
            self.committed = self.other.commit()


@pytest.mark.parametrize("at", range(3, 13))
def test_two_attempts_that_race_for_the_commit_agree(tmp_path: Path, at: int) -> None:
    """The other commits at each moment of a commit; whichever wins, both see the same files."""
    output = file_uri(str(tmp_path / "out"))
    store = Overtaken(dies_at=at)
    with claim(output, store) as journal:
        journal.append(entries(range(RECORDS), by="first"))
        store.other = claim(output)
        # As if the listing had been asked for a moment before the other claimed.
        journal.fenced = lambda: False  # type: ignore[method-assign]
        commit = journal.commit()
    assert store.committed in (None, commit)
    assert ids_of(output, commit) == ALL_IDS
    assert [name for name in files_below(output) if not name.startswith("_")] == [
        commit.errors.path,
        commit.results.path,
    ]
    store.other.__exit__(None, None, None)


def test_commit_believes_its_own_when_the_store_repeats_a_request(output: str) -> None:
    """The put succeeds, its answer is lost, and the repeated put is told that there is something already."""

    class Repeating(MortalStore):
        def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
            super().put(uri, data, if_absent=if_absent)
            if uri.endswith("commit.json"):
                raise AlreadyExists(uri)

    with claim(output, Repeating()) as journal:
        journal.append(entries(range(RECORDS)))
        commit = journal.commit()
    assert commit.attempt == 1
    assert ids_of(output, commit) == ALL_IDS


# dying anywhere


def _attempt(output: str, store: MortalStore, by: str) -> ShardCommit:
    """One worker's life: it takes what is left in batches of three."""
    claimed = ShardJournal.claim(store, output, a_shard(RECORDS), HEADER)
    if isinstance(claimed, ShardCommit):
        return claimed
    with claimed as journal:
        while batch := [p for p in range(RECORDS) if not journal.ledger.is_finished(p)][:3]:
            journal.begin(batch)
            journal.append(entries(reversed(batch), by))
        journal.sync()
        return journal.commit()


@pytest.mark.parametrize("torn", [0.0, 0.4, 0.99, 1.0], ids=lambda share: f"{share:.0%} of the last append is written")
def test_every_record_is_committed_exactly_once_wherever_a_worker_dies(tmp_path: Path, torn: float) -> None:
    whole = MortalStore()
    _attempt(file_uri(str(tmp_path / "undisturbed")), whole, "a1")
    for dies_at in range(1, whole.changes + 1):
        output = file_uri(str(tmp_path / f"dies-at-{dies_at}"))
        with pytest.raises(Died):
            _attempt(output, MortalStore(dies_at, torn), "a1")
        commit = _attempt(output, MortalStore(), "a2")
        assert ids_of(output, commit) == ALL_IDS
        assert commit.reprocessed <= 3


@settings(max_examples=40)
@given(deaths=st.lists(st.tuples(st.integers(1, 25), st.sampled_from([0.0, 0.5, 1.0])), max_size=6))
def test_every_record_is_committed_exactly_once_however_many_workers_die(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[tuple[int, float]]
) -> None:
    output = file_uri(str(tmp_path_factory.mktemp("out")))
    for number, (dies_at, torn) in enumerate(deaths):
        try:
            _attempt(output, MortalStore(dies_at, torn), f"a{number}")
        except Died:
            continue
    commit = _attempt(output, MortalStore(), "last")
    assert ids_of(output, commit) == ALL_IDS
    assert commit.reprocessed <= 3 * len(deaths)


@pytest.mark.parametrize("seed", range(5))
def test_many_workers_on_one_shard_at_once_agree_on_one_commit(tmp_path: Path, seed: int) -> None:
    """Nobody waits for anybody; whoever is fenced off tries again, as its pod would be started again."""
    output = file_uri(str(tmp_path / f"out-{seed}"))
    everybody = Barrier(8)

    def work(number: int) -> ShardCommit:
        everybody.wait()
        while True:
            try:
                return _attempt(output, MortalStore(), f"w{number}")
            except Drained:
                continue

    with ThreadPoolExecutor(8) as pool:
        commits = list(pool.map(work, range(8)))
    assert all(commit == commits[0] for commit in commits)
    assert ids_of(output, commits[0]) == ALL_IDS
    assert files_below(output) == [
        "_headrace/shards/00000/commit.json",
        commits[0].errors.path,
        commits[0].results.path,
    ]
