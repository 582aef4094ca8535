"""What the suites share: parts that may fail, a budget over all of them, and a result on disk at every moment."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from refdiff.benchmark import Budget, PeerError, PeerProcess, markdown, measure, result
from refdiff.benchmark.cases import label
from refdiff.storage.atomic import replace_file

ROOT = Path(__file__).resolve().parent.parent


class Suite:
    """out: NAME.json, beside which NAME.md is written; seconds: the budget of all parts together."""

    def __init__(self, name: str, out: str | Path, seconds: float) -> None:
        self.name, self.out, self.budget = name, Path(out), Budget(seconds)
        self.records: list[dict[str, Any]] = []
        self.parts: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []
        self.more: dict[str, Any] = {}
        # What they run on is asked for once: before anything is under way.
        self.first = result(name, [])
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def part(self, key: str, name: str, share: float, run: Callable[[Budget], str]) -> None:
        """run(budget) -> what to say of it; it gets this share of what is left. An error is recorded."""
        budget = self.budget.part(share)
        entry = self.parts[key] = {"name": name, "text": "did not end", "seconds": 0.0, "ok": False}
        self.write()
        print(f"{name} (at most {budget.seconds:.0f} s)", flush=True)
        try:
            if budget.seconds < 1:
                raise TimeoutError("no time was left")
            entry["text"], entry["ok"] = run(budget), True
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())[:500]
            entry["text"] = f"failed: {type(error).__name__}: {said}"
            self.failures.append(f"{name}: {type(error).__name__}: {said}")
        entry["seconds"] = budget.used
        print(f"  {entry['text']} ({budget.used:.0f} s)", flush=True)
        self.write()

    def case(self, case: Mapping[str, Any], peers: Mapping[str, PeerProcess], **how: Any) -> dict[str, Any]:
        """`measure`, kept, and one line of it."""
        extra = how.pop("extra", {})
        record = measure(case, peers, **how) | extra
        self.records.append(record)
        said = [f"{name} {_short(entry)}" for name, entry in record["peers"].items()]
        print(f"  {label(case)}: {', '.join(said)}", flush=True)
        self.write()
        return record

    def result(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return self.first | {"written": now, "seconds": self.budget.used, "budget": self.budget.seconds, **self.more,
                             "parts": self.parts, "failures": self.failures, "records": self.records}  # fmt: skip

    def write(self) -> None:
        """JSON and Markdown, each whole or not at all."""
        found = self.result()
        text = json.dumps(found, indent=1) + "\n"
        replace_file(self.out, lambda file: file.write(text.encode()))
        table = markdown(found)
        replace_file(self.out.with_suffix(".md"), lambda file: file.write(table.encode()))

    def finish(self) -> int:
        """Print the table last.   -> the exit status: 1 if a part failed."""
        self.write()
        print("\n" + self.out.with_suffix(".md").read_text())
        print(f"{self.out} and {self.out.with_suffix('.md').name} are written.")
        return int(not all(part["ok"] for part in self.parts.values()))


def _short(entry: Mapping[str, Any]) -> str:
    if "seconds" in entry:
        return f"{1e3 * entry['seconds']:.3f} ms"
    return f"({entry.get('error', 'not timed')})"


def peer(module: str, *arguments: str, threads: int | None = None, python: str = sys.executable) -> PeerProcess:
    """A peer of this project in a process of its own, which sees the checkout and the emulator of its tests. With a number
    of threads it computes on the CPU, and rests between its turns."""
    paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    if threads is not None:
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "REFDIFF_THREADS": str(threads),
        }
    return PeerProcess([python, "-m", module, *arguments], environment, ROOT, rests=threads is not None)


def start(suite: Suite, peers: dict[str, PeerProcess], subject: str, budget: Budget) -> dict[str, Any]:
    """Start all at once and ask what they are, so that no case pays for it.   -> name -> versions.

    A peer that does not start is taken out of `peers` and recorded. RuntimeError if that is the subject.
    """
    found: dict[str, Any] = {}
    for each in peers.values():
        with suppress(PeerError):
            each.start()
    for name, each in list(peers.items()):
        try:
            found[name] = each.about(budget.outer.left if budget.outer else budget.left)
        except PeerError as error:
            if name == subject:
                raise RuntimeError(f"{name} {error}") from None
            suite.failures.append(f"{name}: {error}")
            peers.pop(name).close()
    return found


def close(peers: Mapping[str, PeerProcess]) -> None:
    for each in peers.values():
        each.close()
