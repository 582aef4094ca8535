"""What the suites share: parts that may fail, a budget over all of them, and a result on disk at every moment."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.earlier import Results
from refdiff.benchmark import Budget, PeerError, PeerProcess, markdown, measure, result
from refdiff.benchmark.cases import label
from refdiff.benchmark.machine import machine
from refdiff.storage.atomic import replace_file

ROOT = Path(__file__).resolve().parent.parent


class Incomplete(RuntimeError):
    """Fewer cases were measured than asked for, or a result was wrong."""


class Suite:
    """out: NAME.json, beside which NAME.md is written; seconds: the budget of all parts together.

    add: results of earlier runs, as `json.load` gives them, that this one goes on from: see `Results`.
    """

    def __init__(self, name: str, out: str | Path, seconds: float, add: Sequence[Mapping[str, Any]] = ()) -> None:
        self.name, self.out, self.budget = name, Path(out), Budget(seconds)
        self.results = Results()
        for each in add:
            self.results.take(each)
        self.ran: list[str] = []  # parts of this run
        # What they run on is asked for once: before anything is under way.
        self.first = result(name, [])
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        return self.results.parts

    @property
    def entry(self) -> dict[str, Any]:
        """Of the part that runs: name, text, ok, failures, when and on what, and what it found."""
        return self.parts[self.ran[-1]]

    @property
    def more(self) -> dict[str, Any]:
        """What the part that runs has found, beside its records."""
        return self.entry["found"]

    def part(self, key: str, name: str, share: float, run: Callable[[Budget], str]) -> None:
        """run(budget) -> what to say of it; it gets this share of what is left. An error is recorded."""
        budget = self.budget.part(share)
        entry = {"name": name, "text": "did not end", "seconds": 0.0, "ok": False, **self._here(),
                 "versions": self.first["versions"], "machine": machine(), "found": {}, "failures": []}  # fmt: skip
        self.results.begin(key, entry)
        self.ran.append(key)
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
            entry["failures"].append(f"{type(error).__name__}: {said}")
        entry["seconds"], entry["machine_after"] = budget.used, machine()
        print(f"  {entry['text']} ({budget.used:.0f} s)", flush=True)
        self.write()

    def case(self, case: Mapping[str, Any], peers: Mapping[str, PeerProcess], **how: Any) -> dict[str, Any]:
        """`measure`, recorded, and one line of it."""
        extra = how.pop("extra", {})
        record = self.keep(measure(case, peers, **how) | extra)
        said = [f"{name} {_short(entry)}" for name, entry in record["peers"].items()]
        print(f"  {label(case)}: {', '.join(said)}", flush=True)
        return record

    def keep(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write down a record of the part that runs, in the place of an earlier one of the same case."""
        gpu = self.first["machine"].get("gpu", {}).get("name", "")
        record |= {"part": self.ran[-1], **self._here(), "gpu": gpu}
        self.results.keep(record)
        self.write()
        return record

    def result(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        here = {"written": now, "seconds": self.budget.used, "budget": self.budget.seconds}
        if not self.ran and self.parts:  # nothing was run here: what was taken in speaks of where it was
            here |= {key: self.results.newest()[key] for key in ("versions", "machine")}
        return self.first | here | self.results.as_dict()

    def write(self) -> None:
        """JSON and Markdown, each whole or not at all."""
        found = self.result()
        text = json.dumps(found, indent=1) + "\n"
        replace_file(self.out, lambda file: file.write(text.encode()))
        table = markdown(found)
        replace_file(self.out.with_suffix(".md"), lambda file: file.write(table.encode()))

    def finish(self) -> int:
        """Print the table last.   -> the exit status: 1 if a part of this run failed."""
        self.write()
        print("\n" + self.out.with_suffix(".md").read_text())
        print(f"{self.out} and {self.out.with_suffix('.md').name} are written.")
        return int(not all(self.parts[key]["ok"] for key in self.ran))

    def _here(self) -> dict[str, Any]:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"written": now, "commit": self.first["versions"]["commit"]}


def counted(records: Sequence[Mapping[str, Any]], asked: int, what: str = "seconds") -> str:
    """What to say of a part's cases. Incomplete where its subject was measured in fewer than were asked for, or gave a wrong
    result; what peers lack is said, for not every library can do every case."""
    done = [r for r in records if what in (e := r["peers"].get(r["subject"], {})) and "error" not in e]
    text = f"{len(done)} of {asked} cases were measured"
    for name in dict.fromkeys(name for r in records for name in r["peers"] if name != r["subject"]):
        theirs = sum(what in (e := r["peers"].get(name, {})) and "error" not in e for r in records)
        text += f", {name} in {theirs}" * (theirs < len(records))
    wrong = [r for r in records if "wrong" in r["peers"].get(r["subject"], {})]
    bad = [f"{label(r['case'])} {r['peers'][r['subject']]['wrong']}" for r in wrong]
    bad += [f"{label(r['case'])}: {e['error']}" for r in records if "error" in (e := r["peers"].get(r["subject"], {}))]
    if len(done) < asked and not bad:
        bad = ["no time was left for the others"]
    if bad:
        text += f"; {len(wrong)} of them wrong" if wrong else ""
        raise Incomplete(f"{text}; {'; '.join(bad[:3])}")
    return text


def _short(entry: Mapping[str, Any]) -> str:
    said = [f"{1e3 * entry['seconds']:.3f} ms"] if "seconds" in entry else []
    said += [f"({entry[key]})" for key in ("wrong", "error") if key in entry]
    return " ".join(said) or "(not timed)"


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
            found[name] = each.about(budget.patience)
        except PeerError as error:
            if name == subject:
                raise RuntimeError(f"{name} {error}") from None
            suite.entry["failures"].append(f"{name}: {error}")
            peers.pop(name).close()
    return found


def close(peers: Mapping[str, PeerProcess]) -> None:
    for each in peers.values():
        each.close()
