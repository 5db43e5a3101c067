"""The store of objects: what only an object store does, and what it says when the other side says no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from headrace_worker.stores import buckets
from headrace_worker.stores.base import AlreadyExists, NoSpace, NotWritable, StoreError, Unreachable
from headrace_worker.stores.buckets import Address, connect
from headrace_worker.stores.objects import BucketStore
from headrace_worker.stores.segments import SegmentedLog, segment_name, segment_number
from headrace_worker.stores.uploads import PART_BYTES
from object_store import BUCKET, LOSING, S3


@pytest.fixture
def store(s3: S3) -> BucketStore:
    """A store with connections of its own."""
    assert s3.port
    return BucketStore()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry, but not for long."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2}
    monkeypatch.setattr(buckets, "RETRY", {"max_retries": 2, "retry_timeout": timedelta(minutes=2), "backoff": backoff})


# URIs


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        pytest.param("s3://in/a/b.jsonl", Address("s3", "in", "a/b.jsonl"), id="an object"),
        pytest.param("gs://in/a/", Address("gs", "in", "a"), id="a folder"),
        pytest.param("az://box", Address("az", "box", ""), id="a whole container"),
        pytest.param("s3://in/a%20b/%C3%BC%25.txt", Address("s3", "in", "a b/ü%.txt"), id="escaped characters"),
        pytest.param("s3://in/a b/ü.txt", Address("s3", "in", "a b/ü.txt"), id="characters as they are"),
    ],
)
def test_address_of_a_uri(uri: str, address: Address) -> None:
    assert Address.of(uri) == address


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///key", "s3://in//key", "s3://in/a//b", "s3://in/../b", "s3://in*/b", "x://in/b"]
)
def test_address_of_what_is_no_object(uri: str) -> None:
    with pytest.raises(StoreError, match="is not the URI of an object: it must be a scheme, a bucket and a key"):
        Address.of(uri)


@pytest.mark.parametrize(
    ("scheme", "variables"),
    [
        pytest.param("s3", {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}, id="S3"),
        pytest.param("gs", {"GOOGLE_SKIP_SIGNATURE": "true"}, id="Google"),
        pytest.param("az", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}, id="Azure"),
    ],
)
def test_connect_to_each_kind(scheme: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (
        type(connect(Address(scheme, "box", ""))).__name__
        == {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}[scheme]
    )


def test_connect_to_azure_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        StoreError, match="az://box cannot be read: there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME"
    ):
        connect(Address("az", "box", ""))


@pytest.mark.parametrize("endpoint", ["minio:9000", "foo bar", "http://", "ftp://minio"])
def test_connect_to_an_endpoint_that_is_no_url(endpoint: str) -> None:
    with pytest.raises(StoreError, match=r"AWS_ENDPOINT_URL must be a URL such as http://minio\.storage:9000, not '"):
        connect(Address("s3", "box", ""), {"AWS_ENDPOINT_URL": endpoint})


# what the other side says


def put(store: BucketStore, uri: str) -> None:
    store.put(uri, b"x")


def put_if_absent(store: BucketStore, uri: str) -> None:
    store.put(uri, b"x", if_absent=True)


def write(store: BucketStore, uri: str) -> None:
    with store.writer(uri) as stream:
        stream.write(b"x")


def write_parts(store: BucketStore, uri: str) -> None:
    with store.writer(uri) as stream:
        for _ in range(10):
            stream.write(b"x" * PART_BYTES)


def append(store: BucketStore, uri: str) -> None:
    with store.append(uri) as log:
        log.append(b"x")


def delete(store: BucketStore, uri: str) -> None:
    store.delete(uri)


def read(store: BucketStore, uri: str) -> None:
    store.read(uri)


def open_(store: BucketStore, uri: str) -> None:
    store.open(uri)


def list_(store: BucketStore, uri: str) -> None:
    list(store.list(f"{uri}/"))


def list_glob(store: BucketStore, uri: str) -> None:
    list(store.list(f"{uri}/*.jsonl"))


Act = Callable[[BucketStore, str], None]
READS = (read, open_, list_, list_glob)
WRITES = (put, put_if_absent, write, write_parts)
REFUSED = [
    pytest.param("no-such-bucket", StoreError, "there is no bucket s3://no-such-bucket; check its name, or make it", id="no bucket"),
    pytest.param("forbidden", StoreError, "access is denied: let these credentials .* in s3://forbidden", id="no access"),
    pytest.param("unknown-key", StoreError, "not accepted .InvalidAccessKeyId.: set AWS_ACCESS_KEY_ID", id="an unknown key"),
    pytest.param("wrong-secret", StoreError, "not accepted .SignatureDoesNotMatch.*storage.secretRef", id="a wrong secret"),
    pytest.param("expired", StoreError, "the credentials are not accepted .ExpiredToken.", id="an old token"),
    pytest.param("elsewhere", StoreError, "set AWS_REGION to the region of the bucket", id="another region"),
    pytest.param("overloaded", Unreachable, r"127\.0\.0\.1:\d+ answers 503, after 2 retries", id="too many requests"),
    pytest.param("strange", StoreError, "cannot be (read|written): Teapot", id="something new"),
]  # fmt: skip


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("act", [*READS, *WRITES])
@pytest.mark.parametrize(("bucket", "kind", "message"), REFUSED)
def test_refusals_say_what_to_mend(
    store: BucketStore, act: Act, bucket: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"s3://{bucket}/folder/x.*{message}"):
        act(store, f"s3://{bucket}/folder/x")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("act", WRITES)
def test_writing_where_it_is_not_allowed(store: BucketStore, act: Act) -> None:
    with pytest.raises(NotWritable, match="access is denied"):
        act(store, "s3://forbidden/x")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("act", WRITES)
def test_writing_to_a_full_store(store: BucketStore, act: Act) -> None:
    with pytest.raises(NoSpace, match=r"make room there, or make output\.uri a larger place"):
        act(store, "s3://full/x")


@pytest.mark.usefixtures("impatient", "s3")
@pytest.mark.parametrize("act", [*READS, *WRITES, append, delete])
def test_a_server_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch, act: Act) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(Unreachable, match=f"{endpoint} cannot be reached.*check that it is up.*AWS_ENDPOINT_URL"):
            act(BucketStore(), "s3://box/x")


@pytest.mark.usefixtures("impatient", "s3")
def test_a_server_whose_name_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid:9000")
    with pytest.raises(Unreachable, match=r"http://no-such-host\.invalid:9000 cannot be reached"):
        BucketStore().read("s3://box/x")


@pytest.mark.usefixtures("impatient", "s3")
@pytest.mark.parametrize("missing", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_half_of_the_credentials(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(StoreError, match="there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        BucketStore().read("s3://box/x")


@pytest.mark.usefixtures("impatient", "s3")
def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the client asks the metadata service of its machine, and here there is none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(
            StoreError, match="s3://box/x cannot be read: there are no credentials: set AWS_ACCESS_KEY_ID"
        ):
            BucketStore().read("s3://box/x")


# what is asked again although it was done


@pytest.mark.parametrize(
    ("bucket", "kind"),
    [
        pytest.param("failing", AlreadyExists, id="asked again after an error, it has lost to itself"),
        pytest.param("cutting", AlreadyExists, id="asked again over another connection, it has lost to itself"),
        pytest.param("stalling", Unreachable, id="not asked again after no answer, nobody knows"),
    ],
)
def test_put_if_absent_whose_answer_is_lost(
    s3: S3, store: BucketStore, monkeypatch: pytest.MonkeyPatch, bucket: str, kind: type[Exception]
) -> None:
    """Who cares must look who the winner is, as claims and commits do."""
    uri = f"{s3.folder(bucket)}/once"
    with monkeypatch.context() as patch:
        if bucket == "stalling":
            patch.setattr(buckets, "_TIMEOUT", timedelta(seconds=2))
        with pytest.raises(kind):
            store.put(uri, b"x", if_absent=True)
    assert BucketStore().read(uri) == b"x"


@pytest.mark.parametrize("bucket", LOSING)
def test_append_whose_answers_are_lost_has_each_byte_once(
    s3: S3, store: BucketStore, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    if bucket == "stalling":
        monkeypatch.setattr(buckets, "_TIMEOUT", timedelta(seconds=2))
    uri = f"{s3.folder(bucket)}/a1.journal"
    store.put(uri, b"")
    with store.append(uri) as log:
        for number in range(3):
            log.append(b"%d\n" % number)
            log.sync()
    with store.read_log(uri) as stream:
        assert stream.read() == b"0\n1\n2\n"


@pytest.mark.parametrize("bucket", LOSING)
def test_writer_of_parts_whose_answers_are_lost_has_each_byte_once(
    s3: S3, store: BucketStore, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    if bucket == "stalling":
        monkeypatch.setattr(buckets, "_TIMEOUT", timedelta(seconds=2))
    uri = f"{s3.folder(bucket)}/big"
    parts = [bytes([number]) * PART_BYTES for number in range(3)]
    with store.writer(uri) as stream:
        for part in parts:
            stream.write(part)
    assert BucketStore().read(uri) == b"".join(parts)
    assert b"<Upload>" not in s3.request("GET", f"/{bucket}?uploads")


def test_append_to_a_log_of_somebody_else_is_refused(s3: S3, store: BucketStore) -> None:
    uri = f"{s3.folder()}/a1.journal"
    with store.append(uri) as mine:
        with store.append(uri) as theirs:
            theirs.append(b"theirs")
        mine.append(b"mine")
        with pytest.raises(StoreError, match=r"a1\.journal\.000001 was written by somebody else"):
            mine.sync()
    with store.read_log(uri) as stream:
        assert stream.read() == b"theirs"


# reading and writing


def test_open_of_an_object_that_is_replaced_meanwhile(s3: S3, store: BucketStore) -> None:
    uri = f"{s3.folder()}/in.jsonl"
    store.put(uri, b"old\n" * 4_000_000)
    with store.open(uri) as stream:
        assert stream.readline() == b"old\n"
        store.put(uri, b"new\n" * 4_000_000)
        with pytest.raises(StoreError, match=r"in\.jsonl was replaced while it was read"):
            stream.read()


def test_read_log_of_which_a_part_is_missing(s3: S3, store: BucketStore) -> None:
    uri = f"{s3.folder()}/a1.journal"
    with store.append(uri) as log:
        for _ in range(3):
            log.append(b"x")
            log.sync()
    store.delete(segment_name(uri, 2))
    with (
        pytest.raises(StoreError, match=r"a1\.journal\.000002 is not there, although later parts"),
        store.read_log(uri),
    ):
        pass


def test_read_log_without_its_beginning_is_no_log(s3: S3, store: BucketStore) -> None:
    uri = f"{s3.folder()}/a1.journal"
    with store.append(uri) as log:
        log.append(b"x")
    store.delete(uri)
    with pytest.raises(StoreError, match=r"a1\.journal is not there"), store.read_log(uri):
        pass


def test_writer_of_parts_that_fails_gives_them_back(s3: S3, store: BucketStore) -> None:
    uri = f"{s3.folder()}/big"

    def fail() -> None:
        with store.writer(uri) as stream:
            for _ in range(4):
                stream.write(b"x" * PART_BYTES)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert b"<Upload>" not in s3.request("GET", f"/{BUCKET}?uploads")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("upload")]


def test_list_leaves_out_the_folders_that_consoles_make(s3: S3, store: BucketStore) -> None:
    folder = s3.folder()
    path = folder.removeprefix("s3:/")
    for marker in ("", "sub/", "empty/"):
        s3.request("PUT", f"{path}/{marker}")
    for name in ("a", "sub/b"):
        store.put(f"{folder}/{name}", b"")
    for uri in (folder, f"{folder}/"):
        assert [found.uri for found in store.list(uri)] == [f"{folder}/a", f"{folder}/sub/b"]


def test_list_refuses_names_that_no_uri_can_say(s3: S3, store: BucketStore) -> None:
    folder = s3.folder()
    s3.request("PUT", f"{folder.removeprefix('s3:/')}//b", b"x")
    with pytest.raises(StoreError, match="no part of a name may be empty"):
        list(store.list(folder))


def test_list_of_more_than_one_page(s3: S3, store: BucketStore) -> None:
    folder = s3.folder()
    with store.append(f"{folder}/log") as log:
        for _ in range(1100):
            log.append(b"x")
            log.sync()
    names = [found.uri for found in store.list(folder)]
    assert names == [f"{folder}/log", *(f"{folder}/{segment_name('log', number)}" for number in range(1, 1101))]
    store.delete(*names)
    assert list(store.list(folder)) == []


# logs


def test_segment_number_of_what_segment_name_names() -> None:
    for number in (1, 999_999, 1_000_000):
        assert segment_number("a1.journal", segment_name("a1.journal", number)) == number
    assert segment_number("a1.journal", "a1.journal") == 0
    for name in ("a1.journal.1", "a11.journal.000001", "a1.journal2", "a1.journal.000001.x"):
        assert segment_number("a1.journal", name) is None


def test_segmented_log_writes_one_object_a_sync_and_none_for_nothing() -> None:
    written: list[tuple[int, bytes]] = []
    log = SegmentedLog(lambda number, data: written.append((number, data)), segments=2)
    log.sync()
    log.append(b"a")
    log.append(b"b")
    log.sync()
    log.sync()
    log.append(b"c")
    log.close()
    assert written == [(3, b"ab"), (4, b"c")]


def test_segmented_log_syncs_less_and_less_often() -> None:
    pauses = [SegmentedLog(lambda *_: None, segments).sync_pause for segments in (0, 25, 475, 100_000)]
    assert pauses == [0.5, 1.0, 10.0, 10.0]


def test_segmented_log_gives_up_what_could_not_be_written() -> None:
    def refuse(number: int, data: bytes) -> None:
        raise Unreachable(f"{number} {data!r}")

    log = SegmentedLog(refuse, segments=0)
    log.append(b"a")
    with pytest.raises(Unreachable, match="1 b'a'"):
        log.sync()
    log.close()
