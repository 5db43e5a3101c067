"""YAML and JSON as `kubectl apply` reads them, and what is said about files that are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.shells.documents import parse_documents
from headrace.shells.problems import ManifestError


def parse(text: str | bytes, file: str = "f.yaml") -> list[Any]:
    """The data of the documents in a file."""
    raw = text.encode() if isinstance(text, str) else text
    return [document.data for document in parse_documents(raw, file, Path("/in"))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("2020-01-01", "2020-01-01", id="a date stays text"),
        pytest.param("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", id="a time stays text"),
        pytest.param("12:30", "12:30", id="no base sixty"),
        pytest.param("1_000", "1_000", id="no underscores in numbers"),
        pytest.param("=", "=", id="an equals sign is text"),
        pytest.param("1.2.3", "1.2.3", id="a version is text"),
        pytest.param("on", True, id="on is true"),
        pytest.param("No", False, id="No is false"),
        pytest.param("y", True, id="y is true"),
        pytest.param("N", False, id="N is false"),
        pytest.param("'on'", "on", id="in quotes it is text"),
        pytest.param("010", 8, id="a leading zero is octal"),
        pytest.param("0x1F", 31, id="hexadecimal"),
        pytest.param("-7", -7, id="a negative number"),
        pytest.param("1e-5", 1e-5, id="an exponent without a point"),
        pytest.param("2E3", 2000.0, id="a large one"),
        pytest.param(".5", 0.5, id="a point without a zero"),
        pytest.param("~", None, id="a tilde is null"),
        pytest.param("", None, id="nothing is null"),
        pytest.param('"\\ud83d\\ude00"', "😀", id="two escapes that are one character"),
    ],
)
def test_parse_documents_scalar(text: str, value: Any) -> None:
    assert parse(f"a: {text}\n") == [{"a": value}]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        pytest.param("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}], id="two documents"),
        pytest.param("---\n---\na: 1\n---\n", [{"a": 1}], id="empty ones are left out"),
        pytest.param("", [], id="an empty file"),
        pytest.param("# nothing\n", [], id="a comment"),
        pytest.param("\ufeffa: 1", [{"a": 1}], id="a byte order mark"),
        pytest.param("a: &x {b: 1}\nc: {<<: *x, d: 2}", [{"a": {"b": 1}, "c": {"b": 1, "d": 2}}], id="a merge"),
        pytest.param('{"a": "\\ud83d\\ude00"}', [{"a": "😀"}], id="JSON"),
        pytest.param('{\n\t"a": [\n\t\t1\n\t]\n}', [{"a": [1]}], id="JSON with tabs"),
        pytest.param('{"%s": 1}' % ("k" * 1100), [{"k" * 1100: 1}], id="JSON that is no YAML"),
        pytest.param("{a: 1, b: [x]}", [{"a": 1, "b": ["x"]}], id="YAML that looks like JSON"),
    ],
)
def test_parse_documents(text: str, documents: list[Any]) -> None:
    assert parse(text) == documents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed here", id="two colons"),
        pytest.param(
            "a:\n\t- b",
            "f.yaml:2:1: not valid YAML: while scanning for the next token, found character '\\t' that cannot start any token",
            id="a tab",
        ),
        pytest.param("a: 'x", "f.yaml:1:6: not valid YAML: while scanning a quoted scalar, found unexpected end of stream", id="a quote"),
        pytest.param("a: *b", "f.yaml:1:4: not valid YAML: found undefined alias 'b'", id="an alias of nothing"),
        pytest.param("a: 1\nb: 2\na: 3", "f.yaml:3: the key a is given twice: first on line 1", id="a key given twice"),
        pytest.param('{"a": 1, "a": 2}', "f.yaml:1: the key a is given twice: first on line 1", id="twice in JSON"),
        pytest.param('{"%s": 0, "b": 1, "b": 2}' % ("k" * 1100), "f.yaml: the key b is given twice in one object",
            id="twice in JSON that is no YAML, for YAML has no keys that long"),
        pytest.param("x: 1\non: 2", "f.yaml:2: the key on is not text: put it in quotes", id="a key that is a boolean"),
        pytest.param("1: x", "f.yaml:1: the key 1 is not text: put it in quotes", id="a key that is a number"),
        pytest.param("? [a]\n: 1", "f.yaml:1: the key a list or an object is not text: put it in quotes", id="a key that is a list"),
        pytest.param("x: 1\nn: 2", "f.yaml:2: the key n is not text: put it in quotes", id="a key that is a boolean of one letter"),
        pytest.param("a: !!binary aGk=", "f.yaml:1: the YAML tag !!binary has no meaning here", id="a tag that JSON has not"),
        pytest.param("a: !mine x", "f.yaml:1: the YAML tag !mine has no meaning here", id="a tag of somebody's own"),
        pytest.param("a: .inf", "f.yaml:1: .inf is not a number that JSON knows", id="infinity"),
        pytest.param("a: 1e999", "f.yaml:1: 1e999 is not a number that JSON knows", id="a number that is too large"),
        pytest.param('{"a": NaN}', "f.yaml: NaN is not a JSON number", id="not a number in JSON"),
        pytest.param('a: "\\ud83d"', "f.yaml:1: an escape that is half a character", id="half a character"),
        pytest.param("a: \x01", "f.yaml:1: a character here may not be in a YAML file", id="a control character"),
        pytest.param("a: &x [*x]", "f.yaml: an alias that contains itself, or values nested too deeply", id="an endless alias"),
        pytest.param("[" * 100_000, "f.yaml: nested too deeply", id="a hundred thousand brackets"),
        pytest.param("- " * 100_000, "f.yaml: nested too deeply", id="a hundred thousand dashes"),
        pytest.param(b"a: \xff", "f.yaml: byte 3 is not UTF-8", id="not UTF-8"),
    ],
)  # fmt: skip
def test_parse_documents_of_a_bad_file(text: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError) as raised:
        parse(text)
    assert str(raised.value) == message


def test_parse_documents_of_a_bad_json_file() -> None:
    with pytest.raises(ManifestError) as raised:
        parse('{\n "a": 1,\n}', "f.json")
    assert str(raised.value).startswith("f.json:3:1: not valid JSON: ") or str(raised.value).startswith("f.json:2:")


def test_parse_documents_refuses_aliases_that_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(ManifestError, match=r"f\.yaml: more than 1000000 values in one document"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("spec", 2, id="an object"),
        pytest.param("spec.input.uri", 4, id="a field in it"),
        pytest.param("spec.items[1]", 7, id="an element of a list"),
        pytest.param("spec.items[1].a", 7, id="a field of an element"),
        pytest.param("spec.input.nothing", 3, id="a missing field: the object it is missing from"),
        pytest.param("spec.items[9]", 5, id="a missing element: the list"),
        pytest.param('data["a.b"]', 9, id="a name with a dot"),
        pytest.param("", 1, id="the document"),
    ],
)
def test_line_of(path: str, line: int) -> None:
    text = "kind: X\nspec:\n  input:\n    uri: here\n  items:\n    - a: 1\n    - a: 2\ndata:\n  a.b: x\n"
    (document,) = parse_documents(text.encode(), "f.yaml", Path("/in"))
    assert document.line_of(path) == line


def test_line_of_in_json() -> None:
    text = json.dumps({"spec": {"input": {"uri": "x"}}}, indent=1)
    (document,) = parse_documents(text.encode(), "f.json", Path("/in"))
    assert document.line_of("spec.input.uri") == 4
