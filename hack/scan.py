"""What is wrong with our images: known holes of their packages, and what needs no list of holes to be seen.

`python hack/scan.py --images build/images` reads the archives that `make images` leaves. Without any network it looks for the user root,
setuid files, files that everybody may write, and keys and passwords in any layer, removed ones too. Debian's packages are held against
the package lists of this machine (`apt-get update` beforehand), which have the fixes of the security team; Python's are shown to
pip-audit, which asks a service. What could not be checked is said, and is no finding, but for `--strict`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sbom

SMALL = 256 * 1024
"""Bytes: what holds a secret is no larger."""
SECRETS = {
    "a private key": re.compile(
        rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----\s+(?:[\w-]+: .*\s+)*[A-Za-z0-9+/=]{40}"
    ),
    "an access key": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "a password in a URL": re.compile(rb"\b(?:index-url|machine|registry)\s*=\s*https?://[^\s/:@]+:[^\s/@]+@"),
}
SECRET_FILES = (
    ".netrc",
    ".pypirc",
    ".git-credentials",
    ".docker/config.json",
    ".ssh/id_rsa",
    ".ssh/id_ed25519",
    ".aws/credentials",
)
SECRET_VARIABLE = re.compile(r"^[A-Z_]*(?:PASSWORD|SECRET|TOKEN|API_KEY)[A-Z_]*=.+|=\w+://[^\s/:@]+:[^\s/@]+@")
SUITES = ("", "-updates", "-security")


class Unchecked(Exception):
    """Something that a check needs is not to be had; the message says what."""


@dataclass
class Image:
    """What there is to judge about an image."""

    name: str
    user: str = ""
    variables: tuple[str, ...] = ()
    modes: dict[str, int] = field(default_factory=dict)
    """Files and folders of the whole, with type and permissions."""
    secrets: list[str] = field(default_factory=list)
    """What is in some layer, if only for a while."""
    codename: str = ""
    """Of the Debian release."""
    packages: list[sbom.Component] = field(default_factory=list)


def read(archive: Path) -> Image:
    """Read an archive in the form of `docker save`."""
    found = Image(archive.stem, packages=sbom.components(archive))
    with tarfile.open(archive) as image:
        manifest = json.loads(_bytes(image, "manifest.json"))[0]
        config = json.loads(_bytes(image, manifest["Config"])).get("config", {})
        found.user, found.variables = config.get("User", ""), tuple(config.get("Env") or ())
        for number, layer in enumerate(manifest["Layers"]):
            with tarfile.open(fileobj=image.extractfile(layer)) as inside:
                for member in inside:
                    _see(found, inside, member, number)
    return found


def _see(image: Image, layer: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> None:
    path = member.name.removeprefix("./").strip("/")
    folder, _, name = path.rpartition("/")
    if name.startswith(".wh."):
        gone = folder if name == ".wh..wh..opq" else f"{folder}/{name.removeprefix('.wh.')}".lstrip("/")
        for known in [it for it in image.modes if it.startswith(f"{gone}/") or (it == gone and gone != folder)]:
            del image.modes[known]
        return
    if not (member.isfile() or member.isdir() or member.islnk()):
        image.modes.pop(path, None)  # a link has no rights of its own, and a device is the runtime's
        return
    image.modes[path] = member.mode | (stat.S_IFDIR if member.isdir() else stat.S_IFREG)
    if not member.isfile() or member.size > SMALL:
        return
    stream = layer.extractfile(member)
    data = stream.read() if stream is not None else b""
    image.secrets += [f"{what} in layer {number}: /{path}" for what in _secrets(path, data)]
    if path.endswith("lib/os-release") and (said := re.search(rb"^VERSION_CODENAME=(\w+)", data, re.MULTILINE)):
        image.codename = said[1].decode()


def _secrets(path: str, data: bytes) -> Iterator[str]:
    if path.endswith(SECRET_FILES) and data.strip():
        yield "credentials"
    yield from (what for what, pattern in SECRETS.items() if pattern.search(data))


# what needs no list of holes


def find_root(image: Image) -> Iterator[str]:
    """The user whose rights a process has."""
    user = image.user.partition(":")[0]
    if user in ("", "0", "root"):
        yield f"runs as root: USER is {image.user!r}"
    elif not user.isdigit():
        yield f"runs as {user!r}: a kubelet takes only a number for a user that is not root"


def find_modes(image: Image) -> Iterator[str]:
    """Files that give more rights than those of who starts them, and files that anybody may change."""
    for path, mode in sorted(image.modes.items()):
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"setuid or setgid: /{path} ({stat.filemode(mode)})"
        if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            yield f"anybody may write it: /{path} ({stat.filemode(mode)})"


def find_secrets(image: Image) -> Iterator[str]:
    """Keys, tokens and passwords."""
    yield from image.secrets
    yield from (
        f"a secret in the variable {it.partition('=')[0]}" for it in image.variables if SECRET_VARIABLE.search(it)
    )


# what needs one


def find_old_packages(image: Image) -> Iterator[str]:
    """Debian's packages of which there is a newer one. Raises `Unchecked`."""
    newest = newest_packages(image.codename)
    for one in image.packages:
        if one.ecosystem == "deb" and one.name in newest:
            version, suite = newest[one.name]
            if one.version != version and is_older(one.version, version):
                yield f"{one.name} {one.version} is behind {suite}, which has {version}"


def newest_packages(codename: str) -> dict[str, tuple[str, str]]:
    """Version and suite of each package of a release, by the lists of this machine's apt. Raises `Unchecked`."""
    if shutil.which("apt-get") is None:
        raise Unchecked("Debian's packages: there is no apt on this machine, and so no list of what is newest")
    asked = ["apt-get", "indextargets", "--format", "$(CODENAME) $(FILENAME)", "Created-By: Packages"]
    lines = [line.split() for line in _output(asked).splitlines()]
    lists = [(suite, file) for suite, file in lines if suite in {codename + ending for ending in SUITES}]
    missing = {f"{codename}{ending}" for ending in SUITES} - {suite for suite, _ in lists}
    if missing:
        raise Unchecked(
            f"Debian's packages: this machine's apt has no lists of {', '.join(sorted(missing))}; add them to its sources, "
            "and `apt-get update`"
        )
    newest: dict[str, tuple[str, str]] = {}
    for suite, file in lists:
        for name, version in _versions(_output(["/usr/lib/apt/apt-helper", "cat-file", file])):
            if name not in newest or is_older(newest[name][0], version):
                newest[name] = (version, suite)
    return newest


def _versions(packages: str) -> list[tuple[str, str]]:
    return re.findall(r"^Package: (\S+)$(?:\n.+)*?\nVersion: (\S+)$", packages, re.MULTILINE)


def is_older(one: str, other: str) -> bool:
    """By Debian's rules."""
    # Debian's own, wherever it is on the PATH.
    return not subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode  # noqa: S607


def find_known_holes(image: Image) -> Iterator[str]:
    """Python's packages of which a hole is known. Raises `Unchecked`."""
    program = Path(sys.executable).with_name("pip-audit")
    found = str(program) if program.exists() else shutil.which("pip-audit")
    if found is None:
        raise Unchecked("Python's packages: there is no pip-audit; `pip install pip-audit`")
    packages = [one for one in image.packages if one.ecosystem == "pypi"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("".join(f"{one.name}=={one.version.partition('+')[0]}\n" for one in packages))
        wanted.flush()
        flags = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        said = subprocess.run(
            [found, f"--requirement={wanted.name}", *flags], capture_output=True, text=True, check=False
        )
    yield from holes(said.stdout, said.stderr)


def holes(said: str, complaint: str) -> Iterator[str]:
    """What pip-audit has found. It calls a package that its service does not know no hole: here that is `Unchecked`."""
    try:
        judged: list[dict[str, Any]] = json.loads(said)["dependencies"]
    except (json.JSONDecodeError, KeyError) as error:
        last = complaint.strip().splitlines()[-1:] or ["it says nothing"]
        raise Unchecked(f"Python's packages: pip-audit cannot reach its service: {last[0][:300]}") from error
    for one in judged:
        for hole in one.get("vulns", ()):
            fixed = ", ".join(hole["fix_versions"]) or "nothing yet"
            yield f"{one['name']} {one['version']} has {hole['id']}, mended by {fixed}"
    skipped = [one for one in judged if "skip_reason" in one]
    if skipped:
        raise Unchecked(
            f"{len(skipped)} of {len(judged)} of Python's packages: pip-audit's service knows nothing about them, "
            f"such as: {skipped[0]['skip_reason']}"
        )


CHECKS: tuple[Callable[[Image], Iterator[str]], ...] = (
    find_root,
    find_modes,
    find_secrets,
    find_old_packages,
    find_known_holes,
)


def scan(image: Image, checks: Iterable[Callable[[Image], Iterator[str]]] = CHECKS) -> tuple[list[str], list[str]]:
    """The findings, and what could not be checked."""
    findings, unchecked = list[str](), list[str]()
    for check in checks:
        try:
            for finding in check(image):
                findings.append(finding)
        except Unchecked as reason:
            unchecked.append(str(reason))
    return findings, unchecked


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unchecked(f"{command[0]}: {done.stderr.strip()[:300]}")
    return done.stdout


def _bytes(image: tarfile.TarFile, name: str) -> bytes:
    file = image.extractfile(name)
    assert file is not None
    return file.read()


def main() -> int:
    """Print what was found in each archive; returns the exit code, 1 for findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, default=Path("build/images"))
    parser.add_argument("--strict", action="store_true", help="fail too when something could not be checked")
    chosen = parser.parse_args()
    archives = sorted(chosen.images.glob("*.tar"))
    if not archives:
        print(f"no images in {chosen.images}: `make images` first", file=sys.stderr)
        return 2
    bad = False
    for archive in archives:
        findings, unchecked = scan(read(archive))
        bad = bad or bool(findings) or (chosen.strict and bool(unchecked))
        for line in findings:
            print(f"{archive.stem}: {line}")
        for line in unchecked:
            print(f"{archive.stem}: NOT CHECKED: {line}", file=sys.stderr)
        print(f"{archive.stem}: {len(findings)} findings, {len(unchecked)} checks could not be made")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
