"""The store of package data."""

from __future__ import annotations

import pydoc_data.topics
import sys
from pathlib import Path

import pytest

from headrace_worker.stores import open_store, relative_name
from headrace_worker.stores.base import NotFound, NotWritable, StoreError
from headrace_worker.stores.packages import PackageStore
from worker_builders import write_files

STORE = PackageStore()
TOPICS = "package://pydoc_data.topics:topics"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that cannot be imported, with data."""
    files = {
        "some_model/__init__.py": b"raise RuntimeError('imported')",
        "some_model/data/a.txt": b"A",
        "some_model/data/b c.txt": b"BC",
        "some_model/__pycache__/x.pyc": b"",
    }
    write_files(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    return "some_model"


def test_list_of_a_package_without_importing_it(package: str) -> None:
    found = list(STORE.list(f"package://{package}"))
    assert [item.uri.removeprefix(f"package://{package}") for item in found] == [
        "/__init__.py",
        "/data/a.txt",
        "/data/b%20c.txt",
    ]
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param("package://some_model/data", ["a.txt", "b c.txt"], id="a folder"),
        pytest.param("package://some_model.data", ["a.txt", "b c.txt"], id="a subpackage"),
        pytest.param("package://some_model/data/a.txt", ["a.txt"], id="a file"),
        pytest.param("package://some_model/**/*c.txt", ["data/b c.txt"], id="a glob"),
        pytest.param("package://some_model/missing", [], id="nothing"),
    ],
)
@pytest.mark.usefixtures("package")
def test_list_of_files_gives_uris_that_open(pattern: str, names: list[str]) -> None:
    found = list(STORE.list(pattern))
    assert [relative_name(pattern, item.uri) for item in found] == names
    assert [len(STORE.read(item.uri)) for item in found] == [item.size for item in found]


def test_open_of_a_file_from_the_middle(package: str) -> None:
    with STORE.open(f"package://{package}/data/b%20c.txt", start=1) as stream:
        assert stream.read() == b"C"


def test_list_of_a_mapping_has_an_object_for_each_entry() -> None:
    found = list(STORE.list(TOPICS))
    assert [relative_name(TOPICS, item.uri) for item in found] == sorted(pydoc_data.topics.topics)
    for item in found:
        text = pydoc_data.topics.topics[relative_name(TOPICS, item.uri)].encode()
        assert (STORE.read(item.uri), item.size) == (text, len(text))


def test_list_of_one_entry_and_of_a_glob() -> None:
    assert [item.uri for item in STORE.list(f"{TOPICS}/while")] == [f"{TOPICS}/while"]
    assert [relative_name(f"{TOPICS}/wh*", item.uri) for item in STORE.list(f"{TOPICS}/wh*")] == ["while"]
    assert list(STORE.list(f"{TOPICS}/missing")) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        pytest.param("package://no_such_module/x", "no Python module no_such_module", id="no such package"),
        pytest.param("package://this/x", "this is no Python package with files", id="a module without a folder"),
        pytest.param("package://json.nothing/x", "json.nothing is no Python package", id="no such subpackage"),
        pytest.param("package://no_such_module:x", "no_such_module cannot be imported", id="no such module"),
        pytest.param("package://json:nothing", "the module json has no attribute nothing", id="no such attribute"),
        pytest.param(f"{TOPICS}/nothing", "the mapping has no entry nothing", id="no such entry"),
        pytest.param("package://json/nothing.txt", "nothing.txt is not there", id="no such file"),
    ],
)
def test_open_of_nothing_names_what_is_missing(uri: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        STORE.open(uri)


def test_list_of_an_attribute_that_is_no_mapping() -> None:
    with pytest.raises(StoreError, match="is a function: it must be a mapping of names to texts"):
        list(STORE.list("package://json:dumps"))


def test_open_of_an_entry_that_is_no_text() -> None:
    with pytest.raises(StoreError, match="os is a module: it must be a text"):
        STORE.open("package://sys:modules/os")


def test_open_of_a_wrong_uri() -> None:
    with pytest.raises(StoreError, match="must be package://MODULE/PATH or package://MODULE:NAME"):
        STORE.open("package://a-b/c")


def test_writing_is_refused() -> None:
    for change in (lambda uri: STORE.put(uri, b""), STORE.writer, STORE.append, STORE.delete):
        with pytest.raises(NotWritable, match=r"output\.uri must be elsewhere"):
            change("package://json/x")


def test_open_store_knows_packages() -> None:
    assert isinstance(open_store(TOPICS), PackageStore)
