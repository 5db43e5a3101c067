"""A real Prometheus beside a test: it scrapes what the test names, and answers queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.processes import free_ports


def program(name: str) -> str:
    """Where a program of Prometheus is; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: apt-get install prometheus")
    return found


class QueryRefused(Exception):
    """Prometheus does not understand the query."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of the answer, as of now; none while it has not scraped. Raises `QueryRefused`."""
        return self._asked("query", query=expression)

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of the answer from one moment to another, in seconds since 1970. Raises `QueryRefused`."""
        return self._asked("query_range", query=expression, start=start, end=end, step=step)

    def _asked(self, path: str, **words: str | float) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?" + urllib.parse.urlencode(words)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return []  # not up yet
            raise QueryRefused(f"{words['query']}: {error.read().decode()}") from error
        except urllib.error.URLError:
            return []


@contextmanager
def scraping(folder: Path, targets: Mapping[int, Mapping[str, str]], rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes ports of this machine every second, and gives their series these labels."""
    (port,) = free_ports(1)
    groups = [{"targets": [f"127.0.0.1:{target}"], "labels": dict(labels)} for target, labels in targets.items()]
    job = {"job_name": "headrace", "honor_labels": True, "static_configs": groups}
    config = {"global": {"scrape_interval": "1s"}, "rule_files": [str(rules)], "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(30)
