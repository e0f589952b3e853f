"""The processor this process runs on.

Law: what cannot be read is given as "unknown", never guessed.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as the system gives it, with family and model where it has them.

    Virtual machines call processors of several generations by one name.
    """
    facts: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name")
    if not name:
        return platform.processor() or platform.machine() or "unknown"
    if "cpu family" in facts and "model" in facts:
        return f"{name} (family {facts['cpu family']}, model {facts['model']})"
    return name


def usable_cores() -> int:
    """Return the number of logical cores this process may use, at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)


def waited_s() -> float | None:
    """Return the seconds that this process's threads stood in line for a core, all together.

    They stand in line when other programs use the cores. None where the system does not tell.
    """
    total = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            try:
                total += int((task / "schedstat").read_text(encoding="utf-8").split()[1])
            except FileNotFoundError:  # a thread that has just ended
                continue
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9


def physical_cores() -> int:
    """Return the number of physical cores this process may use, at least 1."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return max(1, (os.cpu_count() or 2) // (1 if os.uname().sysname == "Darwin" else 2))
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            return max(1, len(usable))
    return max(1, len(cores))
