"""What a result was measured on and of which code, and the file it becomes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..version import __version__

__all__ = ["machine", "result", "versions"]

_PACKAGES = ("numpy", "torch", "triton", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu13")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and what nvidia-smi says of the GPU, clocks and limits included."""
    found: dict[str, Any] = {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        found["cores"] = len(os.sched_getaffinity(0))
    for path, key, name in (
        ("/proc/cpuinfo", "model name", "processor"),
        ("/proc/meminfo", "MemTotal", "memory"),
    ):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        if line := next((line for line in lines if line.startswith(key)), None):
            found[name] = line.split(":")[1].strip()
    with suppress(OSError):
        found["load"] = round(os.getloadavg()[0], 2)
    if gpu := _gpu():
        found["gpu"] = gpu
    return found


def _gpu() -> dict[str, str]:
    fields = ["name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit",
              "temperature.gpu"]  # fmt: skip
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, [v.strip() for v in said[0].split(",")], strict=False)) if said else {}


def versions() -> dict[str, str]:
    """Of Python, refdiff and the packages that matter, where they are installed; and the commit."""
    found = {"python": sys.version.split()[0], "refdiff": __version__, "commit": _commit()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str:
    """Of the checkout that this package is in, "+" if it has changes; "unknown" in an installed one."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return "unknown"
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def result(suite: str, records: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What is written as JSON."""
    return {
        "suite": suite,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "machine": machine(),
        **more,
        "records": list(records),
    }
