"""Which store a URI leads to, and the arithmetic on URIs."""

from __future__ import annotations

import pytest

from headrace_worker.errors import JobFailed
from headrace_worker.stores import join, open_store, relative_name
from headrace_worker.stores.local import LocalStore
from headrace_worker.stores.objects import BucketStore
from headrace_worker.stores.patterns import matcher


def test_open_store_of_a_file() -> None:
    assert isinstance(open_store("file:///data/in.jsonl"), LocalStore)


@pytest.mark.parametrize("uri", ["s3://bucket/key", "gs://bucket/key", "az://box/blob"])
def test_open_store_of_an_object(uri: str) -> None:
    assert isinstance(open_store(uri), BucketStore)


@pytest.mark.parametrize("uri", ["claim://data/in", "hdfs://data/in", "data/in.jsonl"])
def test_open_store_of_a_scheme_without_a_store(uri: str) -> None:
    with pytest.raises(JobFailed, match="it reads and writes file://, s3://, gs:// and az://") as raised:
        open_store(uri)
    assert raised.value.failure.reason == "UnsupportedScheme"
    assert uri in raised.value.failure.message


@pytest.mark.parametrize("folder", ["file:///out", "file:///out/"])
def test_join_does_not_care_about_a_slash(folder: str) -> None:
    assert join(folder, "_headrace", "plan.jsonl") == "file:///out/_headrace/plan.jsonl"


@pytest.mark.parametrize(
    ("pattern", "uri", "name"),
    [
        pytest.param("file:///in/a%20b.txt", "file:///in/a%20b.txt", "a b.txt", id="a file has its own name"),
        pytest.param("file:///in", "file:///in/de/a.txt", "de/a.txt", id="below a folder it is the path"),
        pytest.param("file:///in/", "file:///in/de/a.txt", "de/a.txt", id="a slash makes no difference"),
        pytest.param(
            "file:///in/*/a?.txt", "file:///in/de/a1.txt", "de/a1.txt", id="a glob counts from its fixed part"
        ),
        pytest.param("package://m:NAME", "package://m:NAME/a%2Fb", "a/b", id="an entry of a mapping has its key"),
    ],
)
def test_relative_name_of_a_listed_object(pattern: str, uri: str, name: str) -> None:
    assert relative_name(pattern, uri) == name


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        pytest.param("file:///in/*.[j]", ["a.[j]"], ["a.j", "b/a.[j]"], id="brackets are themselves"),
        pytest.param("file:///in/**/x/*", ["x/a", "d/x/a", "d/e/x/a"], ["a", "xx/a", "x/d/a"], id="folders in between"),
        pytest.param("file:///in/a%3Fb?", ["a?bc"], ["aabc", "a?b/"], id="an escaped question mark is itself"),
    ],
)
def test_matcher_of_a_glob(pattern: str, matching: list[str], others: list[str]) -> None:
    matches = matcher(pattern)
    assert [name for name in [*matching, *others] if matches(name)] == matching
