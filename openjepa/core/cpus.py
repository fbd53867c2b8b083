"""Count the CPU cores that this process may use: by its affinity and by the CPU quota of its container.

Nothing else in the package counts cores.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")  # where Linux mounts control groups

OWN_CGROUPS = Path("/proc/self/cgroup")  # the control groups of this process, one per line: ID:CONTROLLERS:PATH


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, at least 1.

    A quota is rounded to the nearest whole number: fewer threads leave a part of it unused, and more of them are paused
    for a part of every period.
    """
    quota = cpu_quota()
    return permitted_cores() if quota is None else max(1, min(permitted_cores(), math.floor(quota + 0.5)))


def permitted_cores() -> int:
    """Return the number of cores that this process may run on, whatever its quota."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_quota() -> str:
    """Describe the CPU quota if it, and not the number of cores, limits this process; otherwise return ""."""
    quota = cpu_quota()
    if quota is None or quota >= permitted_cores():
        return ""
    return f"a CPU quota of {quota:.3g} of {permitted_cores()} cores"


def cpu_quota() -> float | None:
    """Return how many cores the container's control groups grant, such as 1.5; None: no limit.

    A group is limited by every group above it, so the smallest quota counts.
    """
    return min(quotas(), default=None)


def quotas() -> Iterator[float]:
    """Yield the quota of every control group that this process is in, of version 2 (cpu.max) and 1 (cfs_quota_us)."""
    for mount, path in cpu_groups():
        # A container often sees its own group as the mount and the path outside of it: only folders that exist count.
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for length in range(len(parts) + 1):
            yield from read_quota(mount.joinpath(*parts[:length]))


def cpu_groups() -> Iterator[tuple[Path, str]]:
    """Yield the mount and the path of each control group that may limit the CPU time of this process."""
    for line in read_text(OWN_CGROUPS).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2, alone or beside version 1
            yield CGROUPS, path
            yield CGROUPS / "unified", path
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu", "cpu,cpuacct")):
                yield CGROUPS / name, path


def read_quota(group: Path) -> Iterator[float]:
    """Yield the cores that one control group grants, if it limits them."""
    limit, period = [*read_text(group / "cpu.max").split(), "", ""][:2]
    if not limit:
        limit, period = read_text(group / "cpu.cfs_quota_us").strip(), read_text(group / "cpu.cfs_period_us").strip()
    if re.fullmatch(r"[1-9]\d*", limit) and re.fullmatch(r"[1-9]\d*", period):  # "max" and -1: no limit
        yield int(limit) / int(period)


def read_text(file: Path) -> str:
    """Return the contents of a file of the kernel, or nothing if it does not exist or may not be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
