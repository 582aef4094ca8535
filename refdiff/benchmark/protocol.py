"""What a peer's process and the harness say to each other: one JSON object a line, on the peer's stdin and stdout.

    {"do": "about"}                                        -> {"ok": {"torch": "2.13.0", "threads": 2}}
    {"do": "prepare", "case": {...}, "output": "y.npz"}    -> {"ok": {...}}, its arrays in y.npz; ready to be timed
    {"do": "time", "repeats": 3}                           -> {"ok": {"seconds": [0.1, 0.1, 0.1]}}
    {"do": "memory"}                                       -> {"ok": {"bytes": the most that it and its children have had}}

What fails comes as {"error": "one line"}, and the peer goes on; what makes all that follows fail as well, an illegal address
on a GPU say, comes as {"error": "one line", "fatal": true}, and the peer ends. A peer in another language need only speak
this.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["FATAL", "MOST", "Peer", "serve", "sketch"]

FATAL = 70  # exit status of a peer that can do no more
MOST = 1 << 18  # numbers of an array that are compared: those of a longer one are taken at even distances


class Peer(Protocol):
    """What `serve` needs."""

    def about(self) -> dict[str, Any]:
        """Versions and settings."""
        ...

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Run the case once, with the inputs that every peer draws from its seed, and keep it ready.   -> arrays by name."""
        ...

    def time(self, repeats: int) -> list[float]:
        """Seconds of each of `repeats` runs of what was prepared."""
        ...


def sketch(y: Any) -> np.ndarray:
    """At most about MOST numbers of y, as float32: the same places for arrays of one shape. The first is its length."""
    flat = np.asarray(y).reshape(-1)
    step = -(-flat.size // MOST) | 1  # odd, so that it meets every channel
    return np.concatenate([[flat.size], flat[::step]]).astype(np.float32)


def serve(peer: Peer, fatal: Callable[[Exception], bool] = lambda error: False) -> None:
    """Answer until stdin ends. What anything else prints goes to stderr. fatal(error): whether the process can do no more
    after it, and ends with status FATAL."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        reply: dict[str, Any]
        try:
            reply = {"ok": _answer(peer, json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            reply = {"error": f"{type(error).__name__}: {text[:500]}"}
            if fatal(error):
                reply["fatal"] = True
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
        if "fatal" in reply:
            sys.stderr.flush()
            os._exit(FATAL)  # what frees memory of a GPU that is lost would only fail, or hang


def _answer(peer: Peer, message: dict[str, Any]) -> dict[str, Any]:
    match message["do"]:
        case "about":
            return peer.about()
        case "prepare":
            outputs = peer.prepare(message["case"])
            extra = outputs.pop("", {})  # what is no array: counts of bytes and operations, say
            with open(message["output"], "wb") as file:
                np.savez(file, **{name: sketch(y) for name, y in outputs.items()})  # type: ignore[arg-type]
            return extra
        case "time":
            return {"seconds": [float(s) for s in peer.time(message["repeats"])]}
        case "memory":
            return {"bytes": _peak()}
    raise ValueError(f"do: expected about, prepare, time or memory, got {message['do']!r}")


def _peak() -> int:
    """The most bytes of this process; with children, the sum over all of what each had at most, less what of its memory
    now is counted with another process that shares it."""
    here = Path("/proc/self")
    children = [Path("/proc", pid) for file in here.glob("task/*/children") for pid in file.read_text().split()]
    if not children:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    total = 0
    for process in (here, *children):
        found = {}
        for file in ("status", "smaps_rollup"):
            for line in (process / file).read_text().splitlines():
                name, _, value = line.partition(":")
                if value.endswith("kB"):
                    found[name] = int(value.split()[0]) * 1024
        total += found["VmHWM"] - found["VmRSS"] + found["Pss"]
    return total
