"""What an image is made of, read from its layers."""

from __future__ import annotations

from pathlib import Path

import sbom
from image_builders import an_image


def a_distribution(name: str, version: str, licence: str = "License-Expression: MIT") -> dict[str, bytes]:
    about = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n\nWhat it is.\n"
    return {f"./opt/lib/site-packages/{name}-{version}.dist-info/METADATA": about.encode()}


DPKG = b"""Package: libc6
Status: install ok installed
Version: 2.36-9
Description: a library
 of two lines

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def test_components_are_the_packages_of_debian_and_python(tmp_path: Path) -> None:
    files = {"var/lib/dpkg/status": DPKG, **a_distribution("Thing", "1.0"), "etc/passwd": b"root"}
    found = sbom.components(an_image(tmp_path, files))
    assert [one.purl for one in found] == ["pkg:deb/debian/libc6@2.36-9", "pkg:pypi/thing@1.0"]
    assert found[1].licence == "MIT"


def test_components_of_a_later_layer_replace_and_remove(tmp_path: Path) -> None:
    old, kept = a_distribution("old", "1.0"), a_distribution("kept", "1.0")
    removed = {f"opt/lib/site-packages/.wh.{name}": b"" for name in ("old-1.0.dist-info",)}
    found = sbom.components(an_image(tmp_path, {**old, **kept}, {**removed, **a_distribution("new", "2.0")}))
    assert [one.name for one in found] == ["kept", "new"]
    emptied = {"opt/lib/site-packages/.wh..wh..opq": b""}
    assert sbom.components(an_image(tmp_path, old, emptied)) == []


def test_licence_is_what_the_package_says_in_whichever_way(tmp_path: Path) -> None:
    classified = "License: \nClassifier: License :: OSI Approved :: Apache Software License"
    files = {**a_distribution("one", "1", classified), **a_distribution("two", "1", "License: BSD\n  and more lines")}
    assert [one.licence for one in sbom.components(an_image(tmp_path, files))] == ["Apache Software License", "BSD"]


def test_document_is_cyclonedx(tmp_path: Path) -> None:
    found = sbom.components(an_image(tmp_path, a_distribution("thing", "1.0")))
    document = sbom.document("headrace-test", found)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    (component,) = document["components"]
    assert component["purl"] == "pkg:pypi/thing@1.0"
    assert component["licenses"] == [{"license": {"name": "MIT"}}]
