"""The configuration of a run: one frozen dataclass a table of the TOML file, checked when it is made.

A run is its preset, changed by a TOML file, changed by single keys:
`Config.resolve("digits", "my.toml", ["train.steps=500"])`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import DataConfig
from ..engines import ENGINES, resolve
from ..errors import argument, one_of, option, setting
from ..objectives import OBJECTIVES, Classification, Denoising, Objective, ScheduleConfig, kind_of_objective
from ..sampling.settings import SampleConfig
from ..systems import system_of
from .consistency import check_classification_networks, check_denoising_networks, check_networks
from .denoising import check_denoising
from .fitting import (
    FOLLOWERS,
    attention_fits,
    follow_data,
    follow_low_res,
    follow_null_label,
    follow_variance,
    leave_out_denoiser,
)
from .networks import NetworkConfig
from .renamed import modern
from .toml import build, is_text, keys, merge, plain, table_of, toml_text, toml_value
from .train import TrainConfig

__all__ = ["PRESETS", "Config"]

LABEL_DROPOUT = 0.1  # how often a label is left out in training, for guidance [CFG] section 3.2


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes.

    engine: "reference", "cpu", "cuda", or "auto" for the fastest that this machine has. dtype: of the network's activations
    and gradients, "float32" or, on the cuda engine, "bfloat16"; what is kept of the weights is float32 in both.
    """

    data: DataConfig = DataConfig()
    networks: dict[str, NetworkConfig] = field(default_factory=lambda: {"denoiser": NetworkConfig()})
    schedule: ScheduleConfig = ScheduleConfig()
    objective: Objective = Denoising(bins=17)  # levels of the bundled digits
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    engine: str = "auto"
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        self._join_objective()
        check_networks(self.networks, self.objective)
        one_of("engine", self.engine, ("auto", *ENGINES))
        one_of("dtype", self.dtype, ("float32", "bfloat16"))
        if self.dtype == "bfloat16" and self.engine not in ("auto", "cuda"):
            raise ValueError(
                f"dtype: expected float32 with engine {self.engine}, got bfloat16; take {option('engine', 'cuda')}"
            )
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed: expected an integer from 0 to 2^64 - 1, got {self.seed}")
        if hasattr(self.objective, "schedule") and self.sample.steps > self.schedule.T:
            raise ValueError(
                f"sample.steps: expected at most schedule.T = {self.schedule.T}, got {self.sample.steps}; "
                f"add {setting('sample.steps', self.schedule.T)}"
            )
        if isinstance(self.objective, Denoising):
            check_denoising_networks(self.networks, self.objective)
            check_denoising(self, self.objective)
        if isinstance(self.objective, Classification):
            check_classification_networks(self.networks, self.objective)
        if system := system_of(self.objective):
            system.check({name: network.model for name, network in self.networks.items()}, self.objective)

    @property
    def model(self) -> Any:
        """The network that samples are made with: that of networks.denoiser. ValueError if there is none."""
        if "denoiser" not in self.networks:
            raise ValueError(
                f"networks: expected 'denoiser', from which samples are drawn, got {', '.join(self.networks) or 'none'}; "
                "choose a run of denoising"
            )
        return self.networks["denoiser"].model

    @property
    def shards(self) -> int:
        """How many parts a batch has on the engine of this run."""
        return self.train.shards_on(resolve(self.engine))

    def _join_objective(self) -> None:
        """The objective gets the schedule, the label that stands for none, and what else follows from its networks, where
        its fields ask for them."""
        names = {f.name for f in dataclasses.fields(self.objective)}
        changes: dict[str, Any] = {}
        if "schedule" in names:
            changes["schedule"] = self.schedule
        classes = getattr(self.model, "classes", None) if "denoiser" in self.networks else None
        if isinstance(self.objective, Denoising) and classes is not None:
            rates = {entry: rate for entry, _, rate in self.objective.null}
            others = tuple(one for one in self.objective.null if one[0] != "label")
            told = classes and getattr(self.model, "null_label", True)
            changes["null"] = (*others, ("label", classes, rates.get("label", LABEL_DROPOUT))) if told else others
        object.__setattr__(self, "objective", dataclasses.replace(self.objective, **changes, **self._followed()))

    def to_dict(self) -> dict[str, Any]:
        """As nested dictionaries of plain values; `from_dict` is the inverse."""
        table: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "networks":
                table[f.name] = {name: network.to_dict() for name, network in value.items()}
            elif f.name == "objective":
                names = [g.name for g in dataclasses.fields(value) if g.name != "schedule"]
                kind = kind_of_objective(value)
                table[f.name] = {"kind": kind, **{name: plain(getattr(value, name)) for name in names}}
            else:
                table[f.name] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
        return table

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Config:
        """The inverse of `to_dict`; what is left out has its default. ValueError for unknown keys and wrong types.

        Keys of earlier versions are read as what they are called now.
        """
        table = modern(table)
        for key in table:
            one_of("key", key, [f.name for f in dataclasses.fields(cls)])
        parts: dict[str, Any] = {}
        networks = table_of("networks", table.pop("networks", {"denoiser": {}}))
        parts["networks"] = {
            name: NetworkConfig.from_dict(table_of(f"networks.{name}", network), f"networks.{name}.")
            for name, network in networks.items()
        }
        objective = dict(table_of("objective", table.pop("objective", {})))
        kind = objective.pop("kind", "denoising")
        one_of("objective.kind", kind, OBJECTIVES, "import the module that registers it first")
        for name, part in (
            ("data", DataConfig), ("schedule", ScheduleConfig), ("train", TrainConfig), ("sample", SampleConfig)
        ):  # fmt: skip
            parts[name] = build(part, table_of(name, table.pop(name, {})), name + ".")
        has = {f.name for f in dataclasses.fields(OBJECTIVES[kind])}
        given = {"schedule": parts["schedule"]} if "schedule" in has else {}
        parts["objective"] = build(OBJECTIVES[kind], objective, "objective.", **given)
        return build(cls, table, "", **parts)

    @classmethod
    def resolve(cls, preset: str = "digits", file: str | Path | None = None, changes: Iterable[str] = ()) -> Config:
        """The preset, changed by a TOML file, changed by `key=value` lines. ValueError says which key is wrong, and how.

        Size and channels of the denoiser, and the levels of the data, are those of the images at data.source where neither
        file nor lines give them.
        """
        one_of("preset", preset, PRESETS)
        written: dict[str, Any] = {}
        if file is not None:
            try:
                written = tomllib.loads(Path(file).read_text())
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ValueError(f"configuration {file}: expected a readable TOML file: {error}") from None
        return PRESETS[preset]._with([modern(written), _together(changes)], follow=True)

    def changed(self, changes: Iterable[str]) -> Config:
        """This configuration with `key=value` lines applied, such as train.steps=500. ValueError as for `resolve`.

        A line for data.source brings the size and the channels of its images along, as in `resolve`.
        """
        table = _together(changes)
        return self._with([table], follow="data.source" in keys(table))

    def _with(self, tables: Iterable[dict[str, Any]], follow: bool) -> Config:
        """With these tables merged in; follow: what they do not say of the denoiser's shape is that of the data."""
        table, given = self.to_dict(), set[str]()
        for each in tables:
            merge(table, each)
            given |= keys(each)
        networks = table.get("networks")
        if isinstance(networks, dict):
            leave_out_denoiser(table, given, self.objective)
            if follow and isinstance(table.get("data"), dict):
                follow_data(table, given)
            follow_low_res(table, given)
            for name in FOLLOWERS:
                model = networks.get(name)
                if isinstance(model, dict) and f"networks.{name}.attention" not in given and not attention_fits(model):
                    del model["attention"]
            if isinstance(model := networks.get("denoiser"), dict):
                follow_null_label(table, model, given)
                if "objective.variance" in given:
                    follow_variance(table, model, given)
        config = Config.from_dict(table)
        config._check_followed(table, keys(each))
        return config

    def _followed(self) -> dict[str, Any]:
        """The fields of the objective that follow from its networks."""
        follows = getattr(system_of(self.objective), "follows", None)
        return follows({n: network.model for n, network in self.networks.items()}, self.objective) if follows else {}

    def _check_followed(self, table: dict[str, Any], given: set[str]) -> None:
        """ValueError for a field of the objective, among the keys given, that follows from the networks, and as another."""
        own = self._followed()
        for name in [name for name in ("trains", *own) if f"objective.{name}" in given and own]:
            expected, got = plain(getattr(self.objective, name)), table["objective"][name]
            if sorted(expected) != sorted(got) if name == "trains" else expected != got:
                said, told = (", ".join(map(str, v)) or "none" if isinstance(v, list) else v for v in (expected, got))
                raise ValueError(
                    f"objective.{name}: expected {said}, as it follows from the networks, got {told}; leave it out"
                )

    def to_toml(self) -> str:
        """As a TOML file that `resolve` reads back."""
        return toml_text(self.to_dict())


def _together(changes: Iterable[str]) -> dict[str, Any]:
    """The table that all lines stand for, in whatever order a kind and what belongs to it are."""
    table: dict[str, Any] = {}
    for change in changes:
        merge(table, _change(change))
    return table


def _change(line: str) -> dict[str, Any]:
    """The table that "train.steps=500" stands for."""
    key, equals, text = line.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"{argument('changes', 'set')}: expected key=value, got {line!r}; for example {setting('train.steps', 500)}"
        )
    value: Any = toml_value(text.strip(), is_text(Config, key.strip()))
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return modern(value)


PRESETS: dict[str, Config] = {}  # by name; `presets.py` has them
