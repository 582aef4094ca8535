"""The configuration of a run: one frozen dataclass a table of the TOML file, checked when it is made.

A run is its preset, changed by a TOML file, changed by single keys:
`Config.resolve("digits", "my.toml", ["train.steps=500"])`.
"""

from __future__ import annotations

import dataclasses
import inspect
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engines import ENGINES
from ..errors import argument, one_of, option, setting
from ..models import KINDS, MODELS, ModelConfig
from ..process import SCHEDULES, SPACINGS, Schedule
from .fitting import attention_fits, follow_data
from .toml import build, is_text, keys, lines, merge, positive, table_of, toml_value

__all__ = ["PRESETS", "Config", "DataConfig", "SampleConfig", "ScheduleConfig", "TrainConfig"]


@dataclass(frozen=True)
class DataConfig:
    """source: a known data set or a path. See `refdiff.data.load`."""

    source: str = "digits"


@dataclass(frozen=True)
class ScheduleConfig:
    """law: a name in `process.SCHEDULES`; T: its steps; options: its other arguments."""

    law: str = "linear"
    T: int = 1000
    options: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("schedule.law", self.law, SCHEDULES)
        known = [name for name in inspect.signature(SCHEDULES[self.law]).parameters if name != "T"]
        for name in self.options:
            one_of("schedule.options", name, known)
        self.build()

    def build(self) -> Schedule:
        """The schedule itself."""
        return SCHEDULES[self.law](self.T, **self.options)


@dataclass(frozen=True)
class TrainConfig:
    """steps, batch: how many, of how many samples. learning_rate: its peak, reached after `warmup` steps; decay: "cosine",
    to 0 at the last step, or "constant". clip: largest global norm of the gradient, 0 for none. average: the decay of the
    moving average of the weights, with which samples are made. prediction: "eps", "x0" or "v". log_every, grid_every,
    checkpoint_every: steps between log lines, sample grids and checkpoints; 0 for none but the last.
    """

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    average: float = 0.995
    prediction: str = "eps"
    log_every: int = 10
    grid_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        positive("train", self, "steps", "batch", "learning_rate", "log_every")
        positive("train", self, "warmup", "weight_decay", "clip", "grid_every", "checkpoint_every", zero=True)
        one_of("train.decay", self.decay, ("cosine", "constant"))
        one_of("train.prediction", self.prediction, ("eps", "x0", "v"))
        if not 0 <= self.average < 1:
            raise ValueError(f"train.average: expected a decay in [0, 1), got {self.average}")


METHODS = ("ddim", "ancestral", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2s")
FINITE_SIGMA = ("euler", "euler_ancestral", "heun")  # those that divide by sqrt(alpha_bar_T)


@dataclass(frozen=True)
class SampleConfig:
    """method: "ddim", "ancestral", "euler", "euler_ancestral", "heun", "dpmpp_2m" or "dpmpp_2s"; steps: how many of the T;
    spacing: which, "uniform", "trailing", "quadratic", "karras" or "leading", which does not begin at T; eta: of ddim, 0
    deterministic to 1 ancestral; variance: of ancestral, "posterior" or "beta"; clip: hold x0_hat within [-1, 1], the range
    of images.
    """

    method: str = "ddim"
    steps: int = 50
    spacing: str = "uniform"
    eta: float = 1.0
    variance: str = "posterior"
    clip: bool = True

    def __post_init__(self) -> None:
        one_of("sample.method", self.method, METHODS)
        one_of("sample.spacing", self.spacing, SPACINGS)
        one_of("sample.variance", self.variance, ("posterior", "beta"))
        positive("sample", self, "steps")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sample.eta: expected a number from 0 to 1, got {self.eta}")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes.

    engine: "reference", "cpu", "cuda", or "auto" for the fastest that this machine has. dtype: of the network's activations
    and gradients, "float32" or, on the cuda engine, "bfloat16"; what is kept of the weights is float32 in both.
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = MODELS["digits"]
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    engine: str = "auto"
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
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
        if self.schedule.build().alpha_bar[-1] == 0:
            self._check_without_signal()

    def _check_without_signal(self) -> None:
        """ValueError for what asks x_T about the data, where alpha_bar_T = 0 leaves nothing of them in it."""
        if self.train.prediction == "eps":  # x_0 = (x_T - eps) / 0
            raise ValueError(
                "train.prediction: expected v or x0 with this schedule, whose alpha_bar_T = 0, got eps, which says nothing "
                f"of the data there; take {setting('train.prediction', 'v')}"
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
        table = dataclasses.asdict(self)
        kind = next(name for name, cls in KINDS.items() if isinstance(self.model, cls))
        table["model"] = {
            "kind": kind,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in table["model"].items()},
        }
        return table

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Config:
        """The inverse of `to_dict`; what is left out has its default. ValueError for unknown keys and wrong types."""
        table = dict(table)
        parts: dict[str, Any] = {}
        model = dict(table_of("model", table.pop("model", {})))
        kind = model.pop("kind", "unet")
        one_of("model.kind", kind, KINDS)
        parts["model"] = build(KINDS[kind], model, "model.")
        for name, part in (
            ("data", DataConfig), ("schedule", ScheduleConfig), ("train", TrainConfig), ("sample", SampleConfig)
        ):  # fmt: skip
            parts[name] = build(part, table_of(name, table.pop(name, {})), name + ".")
        return build(cls, table, "", **parts)

    @classmethod
    def resolve(cls, preset: str = "digits", file: str | Path | None = None, changes: Iterable[str] = ()) -> Config:
        """The preset, changed by a TOML file, changed by `key=value` lines. ValueError says which key is wrong, and how.

        model.size and model.channels, where neither file nor lines give them, are those of the images at data.source.
        """
        one_of("preset", preset, PRESETS)
        written: dict[str, Any] = {}
        if file is not None:
            try:
                written = tomllib.loads(Path(file).read_text())
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ValueError(f"configuration {file}: expected a readable TOML file: {error}") from None
        return PRESETS[preset]._with([written, *map(_change, changes)], follow=True)

    def changed(self, changes: Iterable[str]) -> Config:
        """This configuration with `key=value` lines applied, such as train.steps=500. ValueError as for `resolve`.

        A line for data.source brings the size and the channels of its images along, as in `resolve`.
        """
        tables = [_change(change) for change in changes]
        return self._with(tables, follow=any("data.source" in keys(table) for table in tables))

    def _with(self, tables: Iterable[dict[str, Any]], follow: bool) -> Config:
        """With these tables merged in; follow: what they do not say of the model's shape is that of the data."""
        table, given = self.to_dict(), set[str]()
        for each in tables:
            merge(table, each)
            given |= keys(each)
        model = table.get("model")
        if isinstance(model, dict) and model.get("kind", "unet") == "unet":
            if follow and isinstance(table.get("data"), dict):
                follow_data(table, given)
            if "model.attention" not in given and not attention_fits(model):
                del model["attention"]
        return Config.from_dict(table)

    def to_toml(self) -> str:
        """As a TOML file that `resolve` reads back."""
        plain, tables = [], []
        for key, value in self.to_dict().items():
            if isinstance(value, dict):
                nested = {k: v for k, v in value.items() if isinstance(v, dict)}
                tables.append(f"\n[{key}]\n" + lines({k: v for k, v in value.items() if k not in nested}))
                tables += [f"\n[{key}.{k}]\n" + lines(v) for k, v in nested.items() if v]
            else:
                plain.append(lines({key: value}))
        return "".join(plain + tables)


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
    return value


PRESETS: dict[str, Config] = {
    "digits": Config(),
    "mnist": Config(
        DataConfig("mnist"),
        MODELS["mnist"],
        train=TrainConfig(20_000, 128, 2e-4, 1000, average=0.9995, grid_every=1000),
    ),
    "cifar10": Config(
        DataConfig("cifar-10-batches-bin"),
        MODELS["cifar10"],
        train=TrainConfig(800_000, 128, 2e-4, 5000, "constant", average=0.9999, grid_every=5000, checkpoint_every=5000),
    ),
    "celebahq256": Config(
        DataConfig("celebahq256"),
        MODELS["celebahq256"],
        train=TrainConfig(500_000, 64, 2e-5, 5000, "constant", average=0.9999, grid_every=5000, checkpoint_every=5000),
    ),
    "mixture": Config(
        DataConfig("mixture"),
        MODELS["points"],
        train=TrainConfig(4000, 512, 2e-3, grid_every=0, checkpoint_every=1000, log_every=100),
        sample=SampleConfig(clip=False),
    ),
}
