"""What this process may use: threads and memory, as its cgroup says. Inside a container everything else shows the whole host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from headrace.api.worker import Env
from headrace_worker.engines.transformers.sizing import CACHE_SHARE
from headrace_worker.errors import JobFailed

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def threads(environ: Mapping[str, str] = os.environ, cgroup: Path = CGROUP) -> int:
    """Threads for arithmetic: what `HEADRACE_THREADS` says, else whole CPUs of the quota, else the CPUs it may run on.

    More threads than CPUs are not a little slower but many times: all wait at each barrier for the one that is not running.
    """
    wanted = environ.get(Env.THREADS)
    if wanted is not None:
        if not wanted.isascii() or not wanted.isdecimal() or int(wanted) < 1:
            raise JobFailed("InvalidConfig", f"{Env.THREADS} must be a whole number of at least 1, not {wanted!r}")
        return int(wanted)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device: of a GPU as its driver says, else as the cgroup does."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def cache_budget(device: torch.device) -> int:
    """Bytes that the KV cache may take, once the weights are loaded."""
    return int(free_bytes(device) * CACHE_SHARE[device.type])


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that can still be taken before the kernel ends the process: the machine's, or the cgroup's if that is less."""
    host = _host_memory(meminfo)
    limit = _number(cgroup / "memory.max") or _number(cgroup / "memory" / "memory.limit_in_bytes")
    if limit is None:
        return host
    v2 = (cgroup / "memory.current").exists()
    used = _number(cgroup / "memory.current" if v2 else cgroup / "memory" / "memory.usage_in_bytes") or 0
    stat = _statistics(cgroup / "memory.stat" if v2 else cgroup / "memory" / "memory.stat")
    # The page cache counts as used, but the kernel drops it before it kills anyone.
    reclaimable = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return max(0, min(host, limit - used + reclaimable))


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs of the cgroup, v2 or v1; None without a limit."""
    v2 = _words(cgroup / "cpu.max")
    if len(v2) == 2:
        return None if v2[0] == "max" else int(v2[0]) / int(v2[1])
    quota, period = _number(cgroup / "cpu" / "cpu.cfs_quota_us"), _number(cgroup / "cpu" / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _host_memory(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _statistics(path: Path) -> dict[str, int]:
    words = _words(path)
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def _number(path: Path) -> int | None:
    """The number in a file; None when there is no file, and when the file says `max` or -1 for "no limit"."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []
