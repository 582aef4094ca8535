"""What an entry of the gallery is made with: runs, trained or taken up, values with their spread, pictures, one JSON.

A run lies in runs/gallery/ under its preset and the digest of its configuration. A finished one of the same commit is taken
as it is, so that entries share their runs; of a commit with changes, or of another, it is trained anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.benchmark.machine import machine, versions
from refdiff.config import Config
from refdiff.storage import replace_file
from refdiff.training import State, load_state, train

__all__ = ["GALLERY", "SEEDS", "Work", "configuration", "digest", "spread"]

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "gallery"
SEEDS = tuple(range(6))  # of sampling: a bound is asked of the mean over them


class Work:
    """One entry as it is made. out: the folder of NAME.json and its pictures; runs: where trained runs are kept; changes:
    lines for every configuration, as train.steps=4 for a trial."""

    def __init__(
        self, name: str, title: str, out: Path = GALLERY, runs: Path = ROOT / "runs" / "gallery",
        changes: Sequence[str] = (), progress: bool = True,
    ) -> None:  # fmt: skip
        self.name, self.out, self.runs, self.changes, self.progress = name, out, runs, tuple(changes), progress
        self.commit = versions()["commit"]
        self.record: dict[str, Any] = {
            "name": name, "title": title, "command": f"make gallery NAME={name}",
            "seeds": {"sampling": list(SEEDS)}, "runs": {}, "values": {}, "pictures": {},
        }  # fmt: skip
        self.out.mkdir(parents=True, exist_ok=True)

    def train(self, preset: str, *changes: str, called: str = "") -> tuple[Config, State]:
        """The configuration and the finished state of a preset's run, changed by these lines; in the record under `called`,
        or the name of the preset."""
        config = configuration(preset, (*changes, *self.changes))
        folder = self.runs / f"{preset}-{digest(config.to_dict())[:12]}"
        made = folder / "made.json"
        what = json.loads(made.read_text()) if made.exists() else {}
        if what.get("commit") != self.commit or self.commit.endswith("+"):
            print(f"{self.name}: training {preset}, {config.train.steps} steps", flush=True)
            started = time.perf_counter()
            train(config, folder, force=True, progress=self.progress)
            what = {"commit": self.commit, "seconds": round(time.perf_counter() - started, 1)}
            made.write_text(json.dumps(what))
        run, state = load_state(folder)
        self.record["runs"][called or preset] = {
            "preset": preset, "changes": [*changes, *self.changes], "seed": config.seed, "steps": state.step, **what,
            "digest": digest(config.to_dict()), "configuration": config.to_dict(),
        }  # fmt: skip
        return run, state

    def steps(self, count: int) -> int:
        """So many steps, or as many as the changes for every run say: of a training that is no preset's."""
        given = [int(line.partition("=")[2]) for line in self.changes if line.startswith("train.steps=")]
        return given[-1] if given else count

    def note(self, **values: Any) -> None:
        """Values for the record: numbers, dictionaries of them, or what `spread` made."""
        self.record["values"] |= values

    def picture(self, caption: str, name: str = "") -> Path:
        """Where a picture belongs, NAME.png or NAME-name.png, and what it shows."""
        path = self.out / f"{self.name}{'-' * bool(name)}{name}.png"
        self.record["pictures"][path.name] = caption
        return path

    def write(self) -> Path:
        """NAME.json, whole or not at all."""
        here = versions()
        self.record |= {
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": self.commit,
            "versions": here, "machine": machine(),
        }  # fmt: skip
        text = json.dumps(self.record, indent=1) + "\n"
        path = self.out / f"{self.name}.json"
        replace_file(path, lambda file: file.write(text.encode()))
        return path


def configuration(preset: str, changes: Sequence[str]) -> Config:
    """The configuration of a run of the gallery: on the cpu engine, which every machine has, its shards resolved."""
    config = Config.resolve(preset, None, ["engine=cpu", *changes])
    return replace(config, train=replace(config.train, shards=config.shards))


def digest(table: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration's `to_dict` as JSON, keys sorted."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def spread(values: Sequence[Any]) -> dict[str, Any]:
    """Mean, deviation (of the sample, N - 1) and the single values, of numbers, or of each entry of dictionaries."""
    if isinstance(values[0], Mapping):
        return {str(key): spread([value[key] for value in values]) for key in values[0]}
    each = [float(value) for value in values]
    return {"mean": float(np.mean(each)), "deviation": float(np.std(each, ddof=1)), "each": each}
