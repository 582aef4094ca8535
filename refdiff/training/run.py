"""The folder of a run: config.toml, log.jsonl, checkpoint.safetensors and samples/, none of it overwritten unasked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..data import Data
from ..errors import TrainingError, argument, option
from ..objectives import Denoising
from ..sampling import sample
from ..storage import save_enlarged, save_grid
from ..storage.atomic import replace_file
from ..systems import can_draw, draw
from .frozen import places
from .state import CHECKPOINT, State, load_state, save_state
from .trained_model import conditions_to_show, system_model, trained

__all__ = ["Run", "resumable"]

# Keys that a resumed run may change: they do not touch what is computed.
_FREE = {"train.log_every", "train.grid_every", "train.checkpoint_every", "engine", "dtype"}


def resumable(folder: str | Path) -> Path:
    """The checkpoint in a run's folder. ValueError if there is none."""
    checkpoint = Path(folder) / CHECKPOINT
    if not checkpoint.exists():
        raise ValueError(
            f"{argument('resume')}: expected {checkpoint}, which does not exist; leave {option('resume')} out to begin"
        )
    return checkpoint


class Run:
    """A run's folder, opened to begin (`state` is None) or to go on from its checkpoint (`state` is where it was).

    config: of the run, train.shards resolved, so that another engine goes on with as many; where it is 0, a run that goes on
    has those that it began with. ValueError if the folder holds a run and neither resume nor force is given, if there is
    nothing to resume, or if the checkpoint belongs to another configuration.
    """

    def __init__(self, folder: str | Path, config: Config, *, resume: bool = False, force: bool = False) -> None:
        self.folder = Path(folder)
        self.checkpoint = self.folder / CHECKPOINT
        self.state: State | None = None
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{argument('out')}: expected a folder, got the file {self.folder}; choose another")
        holds = [name for name in ("config.toml", "log.jsonl", CHECKPOINT) if (self.folder / name).exists()]
        if resume:
            saved, self.state = load_state(resumable(self.folder))
            config = _with_shards(config, config.train.shards or saved.train.shards)
            _check_same(_with_shards(saved, saved.train.shards or config.train.shards), config, self.checkpoint)
        elif holds and not force:
            raise ValueError(
                f"{argument('out')}: {self.folder} holds a run ({', '.join(holds)}); add {option('resume')}, "
                f"{option('force')} or choose another"
            )
        self.config = config = _with_shards(config, config.train.shards)
        text = config.to_toml()  # ValueError for what was never registered, before a former run is replaced
        self.folder.mkdir(parents=True, exist_ok=True)
        self._replaced: list[str] | None = [] if resume else holds  # None once this run has begun
        self._text, self._first = text, self.state.step if self.state else 0
        if not self._replaced:
            self.begin()

    @property
    def begun(self) -> bool:
        """Whether the folder holds this run, and no longer a former one."""
        return self._replaced is None

    def begin(self) -> None:
        """The former run, if there is one, makes way for this: after the first step, which finds what else is wrong."""
        if self._replaced is None:
            return
        for name in self._replaced:
            (self.folder / name).unlink()
        if self._replaced:
            shutil.rmtree(self.folder / "samples", ignore_errors=True)
        self._replaced = None
        _write_text(self.folder / "config.toml", self._text)
        self._cut_log(self._first)

    def take_state(self) -> State | None:
        """Where the run was, and no longer kept here; None for one that begins."""
        state, self.state = self.state, None
        return state

    def log(self, **values: Any) -> None:
        """One line of JSON more in log.jsonl, "step" among its values."""
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def save(self, state: State) -> None:
        """The checkpoint, whole or not at all."""
        save_state(self.checkpoint, self.config, state)

    def grid(self, state: State, data: Data, n: int = 64) -> None:
        """A picture of samples, if images are what is learned; of a network that enlarges, beside the small images that the
        first of these data make."""
        objective, low_res, originals = self.config.objective, None, None
        try:
            if isinstance(objective, Denoising):
                model = trained(self.config, state)
                if len(model.shape) != 3:
                    return
                conditions, originals = conditions_to_show(model, n, data)
                images, low_res = sample(model, n, conditions=conditions, progress=False), conditions.get("low_res")
            elif can_draw(objective):
                system = system_model(self.config, state)
                if len(system.shape) != 3:
                    return
                images = draw(system, n, progress=False)
            else:
                return
        except ValueError as error:  # what was learned cannot be drawn of
            raise TrainingError(f"step {state.step}: {error}") from None
        (self.folder / "samples").mkdir(exist_ok=True)
        path = self.folder / "samples" / f"step{state.step:07d}.png"
        if low_res is not None:
            save_enlarged(path, low_res, images, originals)
        else:
            save_grid(path, images)

    def _cut_log(self, step: int) -> None:
        """Forget log lines past the step from which a resumed run goes on."""
        path = self.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] <= step]
            _write_text(path, "".join(line + "\n" for line in kept))


def _write_text(path: Path, text: str) -> None:
    replace_file(path, lambda file: file.write(text.encode()))


def _with_shards(config: Config, shards: int) -> Config:
    """With so many shards of a batch, for 0 as many as there are on its engine."""
    return replace(config, train=replace(config.train, shards=shards or config.shards))


def _check_same(saved: Config, config: Config, path: Path) -> None:
    free = _FREE | places(saved) | ({"train.steps"} if saved.train.decay == config.train.decay == "constant" else set())
    if isinstance(config.objective, Denoising) and not config.objective.learned:
        free = free | {"objective.bins"}
    if not (saved.data.classes and config.data.classes):  # of an earlier version, or of data that do not know them
        free = free | {"data.classes"}
    old, new = _flat(saved.to_dict()), _flat(config.to_dict())
    different = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    different = [k for k in different if k not in free and not k.startswith("sample.")]
    if "objective.kind" in different:  # all else follows
        different = ["objective.kind"]
    if different:
        shown = ", ".join(f"{k} = {old.get(k)!r} there, {new.get(k)!r} here" for k in different)
        raise ValueError(
            f"{argument('resume')}: {path} belongs to another configuration: {shown}; use its config.toml or another "
            f"{argument('out')}"
        )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
