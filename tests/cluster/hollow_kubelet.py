"""Plays the pods of workers on a control plane without nodes.

It binds them to a node that is not there and moves them through their lives in the pods' status. Pods that run answer on their metrics
port, each on a loopback address of its own, so that live progress is real HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from headrace.api import labels
from headrace.api.worker import Env, ExitCode, Report, Role, WorkerConfig, shard_at, termination_message

from .operator_serving import serving
from .operator_workers import Fate, Pod, Script, giving_up, so_far, work
from .pod_processes import Machine

NODE = "hollow"
KILLED = 137
MOST_BYTES = 4 * 2**20
"""Of one line of a watch: a pod with all its configuration."""
JsonObject = dict[str, Any]


class HollowKubelet:
    """One for a whole control plane; it takes every pod of a worker."""

    def __init__(self, session: aiohttp.ClientSession, server: str, metrics_port: int) -> None:
        self._session, self._server, self._port = session, server, metrics_port
        self._scripts: dict[str, Script] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._pods: dict[str, Pod] = {}
        self._attempts: Counter[tuple[str, str, int]] = Counter()
        self.problems: list[str] = []
        """What should not have happened: a pod whose life was cut short by it does nothing more."""
        self._addresses = (f"127.1.{n // 250}.{n % 250 + 1}" for n in itertools.count())

    def add_script(self, namespace: str, script: Script) -> None:
        """Say how the pods of a namespace live, before there are any."""
        self._scripts[namespace] = script

    async def run(self) -> None:
        """Play until cancelled."""
        await self._call("POST", "/api/v1/nodes", {"metadata": {"name": NODE}, "spec": {"unschedulable": True}})
        runner = await self._serve_progress()
        try:
            while True:
                try:
                    await self._watch()
                except (LookupError, ValueError, AssertionError) as error:  # it must go on: all tests of a run share it
                    self.problems.append(repr(error))
                await asyncio.sleep(0.2)  # the API server is being restarted: list again
        finally:
            for life in self._lives.values():
                life.cancel()
            await runner.cleanup()

    async def _serve_progress(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/progress", self._progress)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", self._port).start()
        return runner

    async def _progress(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        said = next((pod.said for pod in self._pods.values() if pod.address == address), None)
        return web.json_response(said.to_object()) if said is not None else web.Response(status=503)

    async def _watch(self) -> None:
        """List, and watch until the connection breaks."""
        query = {"labelSelector": labels.ROLE}
        listed = await self._call("GET", "/api/v1/pods", query=query)
        for pod in listed["items"]:
            self._see("ADDED", pod)
        query |= {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            url = f"{self._server}/api/v1/pods"
            async with self._session.get(url, params=query, timeout=timeout, read_bufsize=MOST_BYTES) as stream:
                if stream.status != 200:
                    return
                async for line in stream.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    self._see(event["type"], event["object"])
        except (aiohttp.ClientError, OSError):
            return

    def _see(self, event: str, obj: JsonObject) -> None:
        uid = obj["metadata"]["uid"]
        if event == "DELETED":
            if (life := self._lives.pop(uid, None)) is not None:
                life.cancel()
            self._pods.pop(uid, None)
            return
        if uid not in self._pods and obj["status"].get("phase") == "Pending":
            self._pods[uid] = self._born(obj)
            self._lives[uid] = asyncio.create_task(self._live(self._pods[uid]))
            self._lives[uid].add_done_callback(self._lived)
        if "deletionTimestamp" in obj["metadata"] and uid in self._pods:
            self._pods[uid].stopped.set()

    def _born(self, obj: JsonObject) -> Pod:
        metadata = obj["metadata"]
        told = {item["name"]: item.get("value", "") for item in obj["spec"]["containers"][0]["env"]}
        config = WorkerConfig.parse(json.loads(told[Env.CONFIG]))
        index = int(metadata["labels"].get("batch.kubernetes.io/job-completion-index", 0))
        shard = shard_at(index, config.retried_shards if metadata["labels"][labels.ROLE] == Role.RUN else None)
        place = (metadata["namespace"], metadata["labels"]["batch.kubernetes.io/job-name"], shard)
        self._attempts[place] += 1
        pod = Pod(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            role=Role(metadata["labels"][labels.ROLE]),
            shard=shard,
            attempt=self._attempts[place],
            config=config,
            address=next(self._addresses),
            obj=obj,
            env=told,
        )
        self._scripts[pod.namespace].pods.append(pod)
        return pod

    def _lived(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            self.problems.append(repr(error))

    async def _live(self, pod: Pod) -> None:
        """One life: it is bound, runs, ends as the script says, and is gone once it has been told to stop."""
        script = self._scripts[pod.namespace]
        fate = script.fate(pod)
        target = {"target": {"kind": "Node", "name": NODE}, "metadata": {"name": pod.name, "uid": pod.uid}}
        await self._call("POST", f"{_path(pod)}/binding", target)
        if pod.role == Role.SERVE:
            await self._serve(pod)
            return
        if script.machine is not None:
            await self._work(pod, script.machine)
            return
        if fate.no_image:
            await self._hang(pod)
            return
        pod.said = so_far(pod, script, fate) if pod.role == Role.RUN else None
        await self._set_status(pod, {"phase": "Running", **_container({"running": {"startedAt": _now()}})})
        if fate.program is not None:
            code, last_word = await fate.program(pod)
            await self._set_status(pod, _ended(code, _words(last_word)))
            await pod.stopped.wait()
            await self._delete(pod)
            return
        await asyncio.sleep(fate.seconds)
        if fate.lingers:
            await script.go.wait()
        drains = fate.waits and not await pod.waits_for(script)
        await self._end(pod, script, fate, drains=drains)
        if not fate.evicted and fate.last_word:
            await pod.stopped.wait()
        await self._delete(pod)

    async def _work(self, pod: Pod, machine: Machine) -> None:
        """A worker that is none of ours lives in its place."""
        await self._set_status(pod, {"phase": "Running", **_container({"running": {"startedAt": _now()}})})
        code, last_words = await machine.work(pod.obj, pod.stopped)
        await self._set_status(pod, _ended(code, last_words))
        await pod.stopped.wait()
        await self._delete(pod)

    async def _serve(self, pod: Pod) -> None:
        """A worker of a warm pool is a real one, at the address of its pod; that needs a listener of its own."""
        async with serving(pod) as worker:
            await self._set_status(pod, {"phase": "Running", **_container({"running": {"startedAt": _now()}})})
            await self._set_status(pod, _ended(*await worker.ended()))
            await pod.stopped.wait()
            await self._delete(pod)

    async def _hang(self, pod: Pod) -> None:
        """It waits for its image until it is told to stop."""
        waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
        await self._set_status(pod, {"phase": "Pending", **_container({"waiting": waiting}, ready=False)})
        await pod.stopped.wait()
        await self._delete(pod)

    async def _delete(self, pod: Pod) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        await self._call("DELETE", _path(pod), options)

    async def _end(self, pod: Pod, script: Script, fate: Fate, *, drains: bool) -> None:
        pod.said = None
        if drains:
            await self._set_status(pod, _ended(ExitCode.DRAINED, _words(so_far(pod, script, fate))))
        elif fate.evicted:
            condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            evicted = {"conditions": [{**condition, "lastTransitionTime": _now()}]}
            await self._set_status(pod, {**_ended(KILLED, _words(None)), **evicted})
        elif fate.exit_code != ExitCode.DONE:
            await self._set_status(pod, _ended(fate.exit_code, _words(giving_up(pod, fate))))
        else:
            report = work(pod, script, fate)
            await self._set_status(pod, _ended(ExitCode.DONE, _words(report if fate.last_word else None)))

    async def _set_status(self, pod: Pod, status: JsonObject) -> None:
        addresses = {"podIP": pod.address, "podIPs": [{"ip": pod.address}]}
        await self._call("PATCH", f"{_path(pod)}/status", {"metadata": {"uid": pod.uid}, "status": status | addresses})

    async def _call(
        self, method: str, path: str, body: JsonObject | None = None, query: dict[str, str] | None = None
    ) -> JsonObject:
        """Ask the API server until it answers; an object that is gone, or there already, is an answer."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = json.dumps(body) if body is not None else None
        while True:
            try:
                url, headers = f"{self._server}{path}", {"Content-Type": kind}
                async with self._session.request(method, url, data=data, headers=headers, params=query) as response:
                    said: JsonObject = await response.json()
                    if response.status < 400 or response.status in (404, 409):
                        return said
                    if response.status < 429:
                        raise AssertionError(f"{method} {path}: {said['message']}")
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass  # it is being restarted
            await asyncio.sleep(0.2)


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _container(state: JsonObject, *, ready: bool = True) -> JsonObject:
    common = {"name": labels.CONTAINER, "image": "hollow", "imageID": "", "restartCount": 0, "ready": ready}
    return {"containerStatuses": [{**common, "state": state}]}


def _words(report: Report | None) -> str:
    return termination_message(report).decode() if report is not None else ""


def _ended(code: int, message: str) -> JsonObject:
    reason, times = "Error" if code else "Completed", {"startedAt": _now(), "finishedAt": _now()}
    terminated = {"exitCode": int(code), "message": message, "reason": reason, **times}
    return {"phase": "Failed" if code else "Succeeded", **_container({"terminated": terminated}, ready=False)}
