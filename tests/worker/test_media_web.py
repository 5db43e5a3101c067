"""Fetching from the web: what is let in, and what a URL, a redirect or a name cannot be used for."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.pki import Authority
from headrace.api.media import Media
from headrace.api.records import ErrorCode
from headrace_worker.media.errors import MediaError
from headrace_worker.media.web import MOST_REDIRECTS, Web, resolve
from web_server import WebServer, dripping_server, page, redirect, web_server

LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture(scope="module")
def running() -> Iterator[WebServer]:
    with web_server() as started:
        yield started


@pytest.fixture
def server(running: WebServer) -> WebServer:
    """The server, with nothing on it."""
    running.pages.clear()
    running.asked.clear()
    return running


def a_web(*addresses: str, names: dict[str, str] | None = None, **media: Any) -> Web:
    """The web, where every name has these addresses (by default this machine's) but for those in `names`."""
    settings = {"allowed_networks": LOOPBACK, "timeout_seconds": 180, **media}
    known = names or {}
    return Web(Media(**settings), lambda host, _: [known[host]] if host in known else list(addresses or ("127.0.0.1",)))


def refusal(web: Web, url: str) -> MediaError:
    with pytest.raises(MediaError) as caught:
        web.fetch(url)
    return caught.value


def test_fetch_reads_what_is_there_and_names_the_host(server: WebServer) -> None:
    server.pages["/a%20b/%C3%BC.jpg?signature=x%2Fy"] = page(b"bytes")
    assert a_web().fetch(server.url("/a%20b/ü.jpg?signature=x%2Fy")) == b"bytes"
    assert server.asked == [(f"media.example:{server.port}", "/a%20b/%C3%BC.jpg?signature=x%2Fy")]


def test_fetch_follows_redirects_also_relative_ones(server: WebServer) -> None:
    server.pages |= {
        "/1/a": redirect("../2?x"),
        "/2?x": redirect(server.url("/3", "other.example"), 308),
        "/3": page(b"end"),
    }
    assert a_web().fetch(server.url("/1/a")) == b"end"
    assert [host for host, _ in server.asked][-1] == f"other.example:{server.port}"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
def test_fetch_goes_to_no_address_that_is_not_public(server: WebServer, address: str) -> None:
    error = refusal(a_web(address, allowed_networks=()), server.url("/secret"))
    assert (error.code, error.retriable) == (ErrorCode.MEDIA_NOT_ALLOWED, False)
    assert address in error.message
    assert "input.media.allowedNetworks" in error.message
    assert server.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "0"])
def test_fetch_knows_this_machine_under_all_its_names(server: WebServer, host: str) -> None:
    error = refusal(Web(Media(timeout_seconds=180), resolve), f"http://{host}:{server.port}/secret")
    assert error.code == ErrorCode.MEDIA_NOT_ALLOWED
    assert server.asked == []


def test_fetch_follows_no_redirect_to_a_private_address(server: WebServer) -> None:
    server.pages |= {"/open": redirect(server.url("/secret", "inside.example")), "/secret": page(b"secret")}
    error = refusal(a_web(names={"inside.example": "192.168.1.1"}), server.url("/open"))
    assert error.code == ErrorCode.MEDIA_NOT_ALLOWED
    assert "inside.example" in error.message
    assert [path for _, path in server.asked] == ["/open"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://media.example/a", "https://", "http://me:pw@media.example/"]
)
def test_fetch_follows_no_redirect_to_what_is_no_url_of_a_host(server: WebServer, target: str) -> None:
    server.pages["/open"] = redirect(target)
    assert refusal(a_web(), server.url("/open")).code == ErrorCode.MEDIA_NOT_ALLOWED


def test_fetch_follows_no_redirect_to_a_host_that_is_not_on_the_list(server: WebServer) -> None:
    server.pages |= {"/open": redirect(server.url("/a", "other.example")), "/a": page(b"a")}
    web = a_web(allowed_hosts=("media.example",))
    error = refusal(web, server.url("/open"))
    assert "other.example, which input.media.allowedHosts does not name" in error.message
    assert [path for _, path in server.asked] == ["/open"]


def test_fetch_name_that_resolves_otherwise_the_second_time_leads_nowhere_else(server: WebServer) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to, and each connection has its own check."""
    server.pages["/a"] = redirect("/a")
    answers = iter(["127.0.0.1", "169.254.169.254", "127.0.0.1"])
    asked: list[str] = []

    def changing(host: str, _: int) -> list[str]:
        asked.append(next(answers))
        return [asked[-1]]

    error = refusal(Web(Media(allowed_networks=LOOPBACK), changing), server.url("/a"))
    assert error.code == ErrorCode.MEDIA_NOT_ALLOWED
    assert asked == ["127.0.0.1", "169.254.169.254"]
    assert len(server.asked) == 1


def test_fetch_of_several_addresses_goes_to_those_that_are_allowed(server: WebServer) -> None:
    server.pages["/a"] = page(b"a")
    assert a_web("10.0.0.1", "127.0.0.1").fetch(server.url("/a")) == b"a"
    assert a_web("127.0.0.2", "127.0.0.1").fetch(server.url("/a")) == b"a", "nobody listens at the first one"


@pytest.mark.parametrize(
    ("answer", "code", "retriable"),
    [
        pytest.param(page(b"", 404), ErrorCode.MEDIA_UNREACHABLE, False, id="not found"),
        pytest.param(page(b"", 403), ErrorCode.MEDIA_UNREACHABLE, False, id="not for us"),
        pytest.param(page(b"", 503), ErrorCode.MEDIA_UNREACHABLE, True, id="not now"),
        pytest.param(page(b"", 302), ErrorCode.MEDIA_UNREACHABLE, False, id="a redirect to nowhere"),
        pytest.param(page(b"x" * 101), ErrorCode.MEDIA_TOO_LARGE, False, id="a byte too many"),
        pytest.param(page(b"", 200, {"Content-Length": "9" * 19}), ErrorCode.MEDIA_TOO_LARGE, False, id="a huge length"),
        pytest.param(page(b"abc", 200, {"Content-Length": "90"}), ErrorCode.MEDIA_UNREACHABLE, True, id="half a body"),
        pytest.param(lambda request: request.wfile.write(b"hello\r\n"), ErrorCode.MEDIA_UNREACHABLE, True, id="no HTTP"),
        pytest.param(lambda _: None, ErrorCode.MEDIA_UNREACHABLE, True, id="no answer"),
    ],
)  # fmt: skip
def test_fetch_says_what_is_wrong_with_an_answer(
    server: WebServer, answer: Any, code: ErrorCode, retriable: bool
) -> None:
    server.pages["/a?signature=secret"] = answer
    error = refusal(a_web(max_bytes=100), server.url("/a?signature=secret"))
    assert (error.code, error.retriable) == (code, retriable)
    assert "secret" not in error.message


def test_fetch_takes_a_body_that_is_just_small_enough(server: WebServer) -> None:
    server.pages["/a"] = page(b"x" * 100)
    assert a_web(max_bytes=100).fetch(server.url("/a")) == b"x" * 100


def test_fetch_reads_no_more_of_an_endless_body_than_it_may_have(server: WebServer) -> None:
    sent: list[int] = []

    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while len(sent) < 4096:
                request.wfile.write(b"x" * 65_536)
                sent.append(1)
        except OSError:
            return

    server.pages["/a"] = endless
    assert refusal(a_web(max_bytes=100_000), server.url("/a")).code == ErrorCode.MEDIA_TOO_LARGE
    assert len(sent) < 4096


def test_fetch_gives_up_on_a_circle_of_redirects(server: WebServer) -> None:
    server.pages["/a"] = redirect("/a")
    assert f"more than {MOST_REDIRECTS} times" in refusal(a_web(), server.url("/a")).message
    assert len(server.asked) == MOST_REDIRECTS + 1


def test_fetch_has_one_deadline_however_slowly_a_server_drips() -> None:
    """Each byte comes in time; headers never end, and stay below every limit on their size for long."""
    with dripping_server(b"x") as port:
        error = refusal(a_web(timeout_seconds=1), f"http://media.example:{port}/a")
    assert (error.code, error.retriable) == (ErrorCode.MEDIA_UNREACHABLE, True)
    assert "within 1 seconds" in error.message


def test_fetch_name_without_address_is_tried_again(server: WebServer) -> None:
    def unknown(host: str, _: int) -> list[str]:
        raise OSError("Name or service not known")

    error = refusal(Web(Media(), unknown), server.url("/a"))
    assert (error.code, error.retriable) == (ErrorCode.MEDIA_UNREACHABLE, True)


def test_fetch_https_from_a_server_without_a_certificate_fails(server: WebServer) -> None:
    web = Web(Media(allowed_networks=LOOPBACK), lambda *_: ["127.0.0.1"], ssl.create_default_context())
    error = refusal(web, server.url("/a").replace("http:", "https:"))
    assert error.code == ErrorCode.MEDIA_UNREACHABLE


def test_fetch_uses_no_proxy(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.pages["/a"] = page(b"a")
    assert a_web().fetch(server.url("/a")) == b"a"


def test_fetch_https_checks_the_certificate_against_the_name_in_the_url(server: WebServer, tmp_path: Path) -> None:
    """The connection goes to an address; the certificate must be that of the host all the same."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    authority = Authority(tmp_path)
    authority.create()
    pair = authority.server("media", ["DNS:media.example"])
    ours, theirs = (
        ssl.create_default_context(cafile=authority.root.certificate),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )
    theirs.load_cert_chain(pair.certificate, pair.key)
    web = Web(Media(allowed_networks=LOOPBACK), lambda *_: ["127.0.0.1"], ours)
    with web_server(theirs) as secured:
        secured.pages["/a"] = page(b"a")
        assert web.fetch(secured.url("/a").replace("http:", "https:")) == b"a"
        error = refusal(web, secured.url("/a", "other.example").replace("http:", "https:"))
    assert (error.code, error.retriable) == (ErrorCode.MEDIA_UNREACHABLE, True)
    assert "certificate" in error.message
    assert len(secured.asked) == 1
