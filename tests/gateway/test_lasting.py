"""Nothing is lost, however the gateway ends: files, batches and their records. And it holds no file in memory."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

from gateway_rig import MARK, gateway, peak_memory, request, requests
from laptop import eventually, processes_with

MEGABYTE = 2**20
MOST_MEMORY = 200 * MEGABYTE


def test_gateway_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    with gateway(tmp_path, mark) as first:
        works = first.batch(requests(12, "slow"))
        waits = [first.batch(requests(5)) for _ in range(2)]
        eventually(lambda: first.client.batches.retrieve(works.id).request_counts.completed > 2)  # type: ignore[union-attr]
        (first.folder / ".headrace" / "uploads" / "default" / "file-half").mkdir()
        first.stop(signal.SIGKILL)
    with gateway(tmp_path, mark) as second:
        assert not (second.folder / ".headrace" / "uploads" / "default" / "file-half").exists()
        done = second.until(works.id, "completed")
        assert second.ids(done.output_file_id) == [f"r{number}" for number in range(12)]
        for one in waits:
            assert len(second.ids(second.until(one.id, "completed").output_file_id)) == 5


def test_gateway_that_is_told_to_stop_leaves_no_worker_and_goes_on_later(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    with gateway(tmp_path, mark) as first:
        works = first.batch(requests(20, "slow"))
        first.until(works.id, "in_progress", "finalizing", "completed")
        assert first.stop() == 0
        assert list(processes_with(MARK, mark)) == []
    broken = tmp_path / ".headrace" / "batches" / "default" / "broken" / "object.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with gateway(tmp_path, mark) as second:
        assert len(second.ids(second.until(works.id, "completed").output_file_id)) == 20
        assert [one.id for one in second.client.batches.list()] == [works.id], "what is damaged is left out"
        assert second.stop(signal.SIGINT) == 0


def test_second_gateway_of_one_state_folder_is_refused(tmp_path: Path) -> None:
    with gateway(tmp_path, "x") as first:
        second = first.headrace("gateway", "--local", "--port", "0", "--models", "models.yaml")
        assert second.returncode == 1
        assert f"held by process {first.process.pid}" in second.stderr


def test_large_files_stream_both_ways(tmp_path: Path) -> None:
    """The text of each line is long, so that there are few records and many bytes."""
    lines = b"".join(request(f"r{number}", text="x" * MEGABYTE) for number in range(256))
    with gateway(tmp_path, "x") as served:
        file_id = served.upload(lines)
        assert served.client.files.retrieve(file_id).bytes == len(lines)
        with served.client.files.with_streaming_response.content(file_id) as response:
            assert sum(map(len, response.iter_bytes())) == len(lines)
        assert peak_memory(served) < MOST_MEMORY
