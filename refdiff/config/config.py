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
from ..models import KINDS
from ..objectives import OBJECTIVES, Denoising, Objective, ScheduleConfig, kind_of_objective
from ..process import SPACINGS
from ..sampling.checking import check_settings
from ..sampling.settings import FINITE_SIGMA, METHODS, SampleConfig
from .consistency import check_denoising_networks, check_networks
from .fitting import FOLLOWERS, attention_fits, downscale_of, follow_data, follow_low_res
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
        if self.sample.steps > self.schedule.T:
            raise ValueError(
                f"sample.steps: expected at most schedule.T = {self.schedule.T}, got {self.sample.steps}; "
                f"add {setting('sample.steps', self.schedule.T)}"
            )
        if isinstance(self.objective, Denoising):
            check_denoising_networks(self.networks, self.objective)
            self._check_denoising(self.objective)

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
        """The objective gets the schedule, and the label that stands for none, where its fields ask for them."""
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
        object.__setattr__(self, "objective", dataclasses.replace(self.objective, **changes))

    def _check_denoising(self, objective: Denoising) -> None:
        """ValueError where prediction, variance, sampler and network do not fit together."""
        outputs, expected = getattr(self.model, "outputs", None), 2 if objective.learned else 1
        if outputs is not None and outputs != expected:
            raise ValueError(
                f"networks.denoiser.outputs: expected {expected} with objective.variance = {objective.variance!r}, got "
                f"{outputs}; leave it out"
            )
        self._check_low_res(objective)
        check_settings(self.sample, objective, self.model)
        if self.schedule.build().alpha_bar[-1] == 0:
            self._check_without_signal(objective)

    def _check_low_res(self, objective: Denoising) -> None:
        """ValueError unless what is made of x has the size that the denoiser reads."""
        size, low_res = getattr(self.model, "size", 0), getattr(self.model, "low_res", 0)
        if objective.downscale and objective.downscale != downscale_of(size, low_res):
            raise ValueError(
                "objective.downscale: expected networks.denoiser.size over low_res, a power of two, or 0 for data that have "
                f"low_res, got {objective.downscale} with size {size} and low_res {low_res}; leave it out"
            )

    def _check_without_signal(self, objective: Denoising) -> None:
        """ValueError for what asks x_T about the data, where alpha_bar_T = 0 leaves nothing of them in it."""
        if objective.prediction == "eps":  # x_0 = (x_T - eps) / 0
            raise ValueError(
                "objective.prediction: expected v or x0 with this schedule, whose alpha_bar_T = 0, got eps, which says "
                f"nothing of the data there; take {setting('objective.prediction', 'v')}"
            )
        if self.sample.method in FINITE_SIGMA:
            others = ", ".join(method for method in METHODS if method not in FINITE_SIGMA)
            raise ValueError(
                f"sample.method: expected one of {others} with this schedule, whose alpha_bar_T = 0 makes sigma infinite, "
                f"got {self.sample.method}; take {setting('sample.method', 'ddim')}"
            )
        if self.sample.spacing == "karras":
            others = ", ".join(spacing for spacing in SPACINGS if spacing != "karras")
            raise ValueError(
                f"sample.spacing: expected one of {others} with this schedule, whose alpha_bar_T = 0 makes "
                f"sigma infinite, got karras; take {setting('sample.spacing', 'trailing')}"
            )

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
            self._leave_out_denoiser(table, given)
            if follow and isinstance(table.get("data"), dict):
                follow_data(table, given)
            follow_low_res(table, given)
            for name in FOLLOWERS:
                model = networks.get(name)
                if isinstance(model, dict) and f"networks.{name}.attention" not in given and not attention_fits(model):
                    del model["attention"]
            if isinstance(model := networks.get("denoiser"), dict):
                self._follow_null_label(table, model, given)
                if "objective.variance" in given:
                    self._follow_variance(table, model, given)
        return Config.from_dict(table)

    def _leave_out_denoiser(self, table: dict[str, Any], given: set[str]) -> None:
        """An objective of another kind, which does not train the preset's denoiser, has none unless told otherwise."""
        objective = table.get("objective")
        kind = OBJECTIVES.get(objective.get("kind", "")) if isinstance(objective, dict) else None
        if (
            kind is None
            or isinstance(self.objective, kind)
            or any(key.startswith("networks.denoiser") for key in given)
        ):
            return
        trains = objective.get("trains", kind.trains)  # type: ignore[union-attr]
        if isinstance(trains, list | tuple) and "denoiser" not in trains:
            table["networks"].pop("denoiser", None)

    @staticmethod
    def _follow_null_label(table: dict[str, Any], model: dict[str, Any], given: set[str]) -> None:
        """What a preset draws with is no guidance where the network was changed to one that knows no null label."""
        changed = given & {"networks.denoiser.classes", "networks.denoiser.null_label"}
        known = model.get("classes") and model.get("null_label", True)
        if changed and not known and "sample.guidance" not in given and isinstance(table.get("sample"), dict):
            table["sample"]["guidance"] = 1.0

    @staticmethod
    def _follow_variance(table: dict[str, Any], model: dict[str, Any], given: set[str]) -> None:
        """A network whose variance is learned says twice as much, and is sampled with it, unless told otherwise."""
        learned = table["objective"]["variance"] == "learned"
        has = {f.name for f in dataclasses.fields(KINDS.get(model.get("kind", "unet"), NetworkConfig))}
        if "networks.denoiser.outputs" not in given and "outputs" in has:
            model["outputs"] = 2 if learned else 1
        if "sample.variance" not in given and isinstance(table.get("sample"), dict):
            table["sample"]["variance"] = "learned" if learned else "posterior"

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
