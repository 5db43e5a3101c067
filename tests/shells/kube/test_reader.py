"""The pod that reads an output: its manifest, how its start is judged, and its life against a server that speaks the protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from builders import BatchBuilder, a_batch
from exec_server import RUNNING, STDERR, STDOUT, SUCCESS, FakeServer, exit_status, saying
from headrace.api import labels
from headrace.api.batchstatus import OutputStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.results import ResultsReport, Wanted
from headrace.core.reader import Reader, Start, last_warning, reader, start_of
from headrace.shells.kube import reader as life
from headrace.shells.kube.api import Api
from headrace.shells.kube.reader import NoReader, ReaderPod

REPORT = b'{"kind": "results", "shards": 2, "records": 1}\n'


def a_read_batch(uri: str, batch: BatchBuilder | None = None) -> InferenceBatch:
    """A batch whose output is there."""
    return (batch or a_batch()).validated().with_status(output=OutputStatus(uri=uri)).build()


def a_reader(uri: str = "claim://results/reviews", **fields: Any) -> Reader:
    return reader(a_read_batch(uri, a_batch().with_spec(**fields)), "some/worker:1", "ab12")


def test_reader_passes_the_restricted_standard_and_has_bounds() -> None:
    pod = a_reader().pod["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert pod["activeDeadlineSeconds"] == 7200
    assert (container["image"], container["command"], container["args"]) == (
        "some/worker:1",
        ["headrace_worker"],
        ["hold"],
    )


def test_reader_mounts_the_output_alone_and_only_to_read_it() -> None:
    made = a_reader(
        input={"uri": "claim://inputs/in.jsonl"}, model={"name": "m", "source": {"claim": {"name": "weights"}}}
    )
    pod = made.pod["spec"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in pod["containers"][0]["volumeMounts"]}
    assert claims == ["results"]
    assert mounts == {"/var/run/headrace/results": True, "/tmp": None}
    words = [
        "headrace_worker",
        "results",
        "--output",
        "file:///var/run/headrace/results/reviews",
        "--all",
        "--limit",
        "3",
    ]
    assert made.command(Wanted.ALL, 3) == words


def test_reader_has_the_secrets_and_the_rights_of_the_batch() -> None:
    made = a_reader("s3://out/reviews/", storage={"secretRef": {"name": "keys"}}, serviceAccountName="reader")
    (container,) = made.pod["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert made.pod["spec"]["serviceAccountName"] == "reader"
    assert made.output_uri == "s3://out/reviews/"


def test_reader_pulls_its_image_as_the_jobs_of_the_batch_did() -> None:
    template = {"spec": {"imagePullSecrets": [{"name": "registry"}], "containers": [{"image": "x"}]}}
    made = reader(a_read_batch("s3://out/"), "x", "ab12", template)
    assert made.pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_reader_goes_with_its_batch_and_is_nobodys_child() -> None:
    """The operator looks after what carries its label and is controlled by a batch; this is neither."""
    metadata = reader(a_read_batch("s3://out/", BatchBuilder("b" * 52, a_batch().spec)), "x", "ab12").pod["metadata"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("InferenceBatch", False, False)
    assert labels.INFERENCE_BATCH not in metadata["labels"]
    assert len(metadata["name"]) <= 63


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
TERMINATED = {"terminated": {"exitCode": 44, "message": "no such role"}}
OLDER_WORKER = {"phase": "Failed", "containerStatuses": [{"state": TERMINATED}]}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}


def waits(why: str) -> Start:
    return Start(running=False, hopeless=False, why=why)


def never(why: str) -> Start:
    return Start(running=False, hopeless=True, why=why)


@pytest.mark.parametrize(
    ("status", "start"),
    [
        pytest.param({}, waits(""), id="just made"),
        pytest.param(RUNNING, Start(running=True, hopeless=False, why=""), id="running"),
        pytest.param({"conditions": [UNSCHEDULED]}, waits("Unschedulable: 0/3 nodes"), id="no room"),
        pytest.param(waiting("ContainerCreating"), waits("ContainerCreating"), id="on its way"),
        pytest.param(waiting("ErrImagePull"), waits("ErrImagePull"), id="a first failed pull"),
        pytest.param(waiting("ImagePullBackOff", "gone"), never("ImagePullBackOff: gone"), id="no image"),
        pytest.param(OLDER_WORKER, never("it ended with exit code 44: no such role"), id="an older worker"),
        pytest.param(EVICTED, never("Evicted: disk pressure"), id="evicted"),
    ],
)
def test_start_of_a_pod(status: dict[str, Any], start: Start) -> None:
    assert start_of({"status": status}) == start


def test_last_warning_is_the_newest() -> None:
    events = [
        {"type": "Warning", "reason": "FailedMount", "message": "new", "lastTimestamp": "2026-01-02T00:00:00Z"},
        {"type": "Warning", "reason": "FailedMount", "message": "old", "lastTimestamp": "2026-01-01T00:00:00Z"},
        {"type": "Normal", "reason": "Scheduled", "message": "fine", "lastTimestamp": "2026-01-03T00:00:00Z"},
    ]
    assert last_warning(events) == "FailedMount: new"
    assert last_warning(events[2:]) == ""


def live(server: FakeServer) -> tuple[ResultsReport, bytes, list[str]]:
    """A reader's life: its report, what it has read, and what was told meanwhile."""
    out, told = bytearray(), list[str]()

    async def story() -> ResultsReport:
        async with server.running() as api_client:
            pod = ReaderPod(api_client, Api(api_client), a_reader(), told.append)
            try:
                await pod.start()
                return await pod.run(["headrace_worker", "results"], out.extend)
            finally:
                await pod.delete()

    return asyncio.run(story()), bytes(out), told


def test_reader_pod_reads_and_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(life, "TELL_SECONDS", -1.0)
    server = FakeServer(saying(STDOUT + b"a line\n", STDERR + b"a warning\n", STDERR + REPORT, status=SUCCESS))
    server.statuses = [{}, waiting("ContainerCreating"), waiting("ContainerCreating"), RUNNING]
    report, out, told = live(server)
    assert (report, out) == (ResultsReport(shards=2, records=1), b"a line\n")
    assert told == ["waiting for the pod reviews-read-ab12: ContainerCreating"]
    assert [pod["metadata"]["name"] for pod in server.made] == server.deleted == ["reviews-read-ab12"]


def test_reader_pod_that_cannot_start_says_why_and_is_deleted() -> None:
    server = FakeServer(saying())
    server.statuses = [waiting("ImagePullBackOff", 'Back-off pulling image "some/worker:1"')]
    with pytest.raises(NoReader, match=r"has not started: ImagePullBackOff: Back-off pulling image"):
        live(server)
    assert server.deleted == ["reviews-read-ab12"]


def test_reader_pod_that_does_not_start_in_time_says_what_its_events_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "START_SECONDS", -1.0)
    server = FakeServer(saying())
    server.statuses = [waiting("ContainerCreating")]
    server.events = [{"type": "Warning", "reason": "FailedAttachVolume", "message": "it is attached elsewhere"}]
    with pytest.raises(NoReader, match="has not started within 0 s: FailedAttachVolume: it is attached elsewhere"):
        live(server)


def test_reader_pod_whose_command_dies_without_a_word() -> None:
    server = FakeServer(saying(STDERR + b"Traceback\nMemoryError\n", status=exit_status(137)))
    with pytest.raises(NoReader, match="headrace_worker results ended with exit code 137: MemoryError"):
        live(server)
    assert server.deleted == ["reviews-read-ab12"]
