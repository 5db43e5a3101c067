"""What is found in an image, and what is said where it cannot be looked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import scan
from image_builders import Entry, an_image

USER = {"User": "65532:65532"}
KEY = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"MIIEpAIBAAKCAQEA" * 8 + b"\n-----END RSA PRIVATE KEY-----\n"
DEBIAN = {
    "usr/lib/os-release": b"ID=debian\nVERSION_CODENAME=bookworm\n",
    "var/lib/dpkg/status": b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.1-1\n\n"
    b"Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13\n",
}
LISTS = {"openssl": ("3.0.22-1~deb12u2", "bookworm-security"), "zlib1g": ("1:1.2.13", "bookworm")}


def found(check: object, *layers: object, path: Path, config: object = None) -> list[str]:
    """What one check finds in an image of these layers."""
    image = scan.read(an_image(path, *layers, config=USER if config is None else config))  # type: ignore[arg-type]
    return list(check(image))  # type: ignore[operator]


@pytest.mark.parametrize("user", ["", "0", "root", "0:65532", "nobody"])
def test_an_image_that_runs_as_root_or_as_a_name_is_found(tmp_path: Path, user: str) -> None:
    assert len(found(scan.find_root, {}, path=tmp_path, config={"User": user})) == 1
    assert found(scan.find_root, {}, path=tmp_path) == []


def test_setuid_files_and_what_anybody_may_write_are_found_in_what_is_left_at_the_end(tmp_path: Path) -> None:
    first = {
        "usr/bin/su": Entry(mode=0o4755),
        "usr/bin/wall": Entry(mode=0o2755),
        "usr/bin/mount": Entry(mode=0o4755),
        "usr/bin/passwd": Entry(mode=0o4755),
        "tmp": Entry(mode=0o1777, kind=tarfile.DIRTYPE),
        "srv": Entry(mode=0o777, kind=tarfile.DIRTYPE),
        "bin/sh": Entry(mode=0o777, kind=tarfile.SYMTYPE),
        "dev/null": Entry(mode=0o666, kind=tarfile.CHRTYPE),
        "etc/motd": Entry(mode=0o666),
    }
    second = {"usr/bin/.wh.mount": b"", "usr/bin/passwd": Entry(mode=0o755)}
    assert found(scan.find_modes, first, second, path=tmp_path) == [
        "anybody may write it: /etc/motd (-rw-rw-rw-)",
        "anybody may write it: /srv (drwxrwxrwx)",
        "setuid or setgid: /usr/bin/su (-rwsr-xr-x)",
        "setuid or setgid: /usr/bin/wall (-rwxr-sr-x)",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("opt/app/tls.key", KEY),
        ("opt/app/settings.py", b'KEY = "AKIAABCDEFGHIJKLMNOP"'),
        ("opt/app/ci.yaml", b"token: ghp_" + b"a1" * 18),
        ("etc/pip.conf", b"[global]\nindex-url = https://me:hunter2@index.example/simple"),
        ("root/.netrc", b"machine index.example login me password hunter2"),
    ],
    ids=["a private key", "an access key", "a token", "a password in a URL", "credentials"],
)
def test_a_secret_is_found_also_in_a_layer_that_a_later_one_hides(tmp_path: Path, name: str, content: bytes) -> None:
    folder, _, last = name.rpartition("/")
    hidden = {f"{folder}/.wh.{last}": b""}
    (said,) = found(scan.find_secrets, {name: content}, hidden, path=tmp_path)
    assert said.endswith(f"in layer 0: /{name}")


def test_code_that_speaks_of_keys_is_no_secret(tmp_path: Path) -> None:
    code = b'if text.startswith("-----BEGIN PRIVATE KEY-----"):\n    raise ValueError("not here")\n'
    assert found(scan.find_secrets, {"opt/app/keys.py": code}, path=tmp_path) == []


def test_a_secret_in_a_variable_is_found_and_its_value_not_told(tmp_path: Path) -> None:
    config = {
        **USER,
        "Env": ["PATH=/bin", "API_KEY=hunter2", "INDEX=https://me:hunter2@index.example", "HF_HUB_OFFLINE=0"],
    }
    said = found(scan.find_secrets, {}, path=tmp_path, config=config)
    assert said == ["a secret in the variable API_KEY", "a secret in the variable INDEX"]


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="versions are compared by Debian's dpkg")
def test_a_package_of_debian_that_is_behind_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "newest_packages", {"bookworm": LISTS}.__getitem__)
    (said,) = found(scan.find_old_packages, DEBIAN, path=tmp_path)
    assert said == "openssl 3.0.1-1 is behind bookworm-security, which has 3.0.22-1~deb12u2"


def test_package_lists_that_this_machine_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(scan, "_output", lambda _: "bookworm /lists/main\nbookworm-updates /lists/updates\n")
    with pytest.raises(scan.Unchecked, match=r"no lists of bookworm-security; add them .*apt-get update"):
        scan.newest_packages("bookworm")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="versions are compared by Debian's dpkg")
def test_the_newest_version_of_all_suites_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "indextargets": "bookworm main\nbookworm-updates updates\nbookworm-security security\n",
        "main": "Package: openssl\nArchitecture: amd64\nVersion: 3.0.20-1\nPriority: optional\n\nPackage: zlib1g\nVersion: 1\n",
        "updates": "",
        "security": "Package: openssl\nVersion: 3.0.22-1~deb12u2\n\nPackage: openssl\nVersion: 3.0.9-1\n",
    }
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(scan, "_output", lambda words: said[words[1] if words[1] in said else words[-1]])
    newest = scan.newest_packages("bookworm")
    assert newest == {"openssl": ("3.0.22-1~deb12u2", "bookworm-security"), "zlib1g": ("1", "bookworm")}


def test_holes_are_those_that_pip_audit_knows() -> None:
    hole = {"id": "CVE-2024-1", "fix_versions": ["3.1.6"]}
    said = json.dumps(
        {"dependencies": [{"name": "jinja2", "version": "3.1.0", "vulns": [hole]}, {"name": "six", "vulns": []}]}
    )
    assert list(scan.holes(said, "")) == ["jinja2 3.1.0 has CVE-2024-1, mended by 3.1.6"]


def test_packages_that_the_service_does_not_know_are_not_called_sound() -> None:
    hole = {"id": "CVE-2024-1", "fix_versions": []}
    known = {"name": "jinja2", "version": "3.1.0", "vulns": [hole]}
    said = json.dumps({"dependencies": [known, {"name": "six", "skip_reason": "six (1.16) was not found"}]})
    findings = scan.holes(said, "")
    assert next(findings) == "jinja2 3.1.0 has CVE-2024-1, mended by nothing yet"
    with pytest.raises(scan.Unchecked, match=r"1 of 2 of Python's packages.*six \(1.16\) was not found"):
        next(findings)


def test_a_service_that_cannot_be_reached_is_named_as_pip_audit_names_it() -> None:
    with pytest.raises(scan.Unchecked, match="Failed to resolve"):
        list(scan.holes("", "Traceback\nConnectionError: Failed to resolve 'advisories.example'"))


def test_what_could_not_be_checked_is_no_finding_but_fails_where_that_is_asked_for(tmp_path: Path) -> None:
    def unreachable(_: scan.Image) -> list[str]:
        raise scan.Unchecked("no lists")

    image = scan.read(an_image(tmp_path, {"usr/bin/su": Entry(mode=0o4755)}, config=USER))
    findings, unchecked = scan.scan(image, [scan.find_modes, unreachable])  # type: ignore[list-item]
    assert (len(findings), unchecked) == (1, ["no lists"])


def scanned(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """`hack/scan.py` where there is neither apt nor pip-audit."""
    bare = Path(sys.base_prefix) / "bin" / "python3"  # beside which there is no pip-audit either
    command = [str(bare), scan.__file__, f"--images={folder}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/nowhere"})


def test_the_exit_code_tells_sound_from_bad_and_from_unchecked(tmp_path: Path) -> None:
    assert scanned(tmp_path).returncode == 2, "there are no images"
    an_image(tmp_path, {"etc/motd": b"hello"}, config=USER)
    sound = scanned(tmp_path)
    assert sound.returncode == 0, sound.stdout
    assert "NOT CHECKED: Debian's packages: there is no apt" in sound.stderr
    assert scanned(tmp_path, "--strict").returncode == 1
    an_image(tmp_path, {"usr/bin/su": Entry(mode=0o4755)}, config=USER)
    bad = scanned(tmp_path)
    assert (bad.returncode, bad.stdout.splitlines()[0]) == (
        1,
        "headrace-test: setuid or setgid: /usr/bin/su (-rwsr-xr-x)",
    )
