"""The networks of a run: what each is, and by which rule its parameters move."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import one_of, setting
from ..models import KINDS, MODELS, kind_of
from .toml import build, plain
from .train import TrainConfig

__all__ = ["NetworkConfig", "ResolvedRule", "RuleConfig"]


@dataclass(frozen=True)
class RuleConfig:
    """rule: how the parameters move. "adamw", by the gradient; "average", p <- d p + (1 - d) g, d = decay, for a codebook;
    "follow", p <- d p + (1 - d) p of the network `of`, for a target; "frozen", never: they are those of the network `of`
    (its own name if left out) of the finished run at `run`; or a rule of yours. What is None is as [train] says:
    learning_rate, weight_decay, max_grad_norm, ema_decay. betas: of Adam's moments.
    """

    rule: str = "adamw"
    learning_rate: float | None = None
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    decay: float = 0.99
    of: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {list(self.betas)}")
        for name in ("decay", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}: expected a decay in [0, 1), got {value}")
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
        if self.rule == "follow" and not self.of:
            raise ValueError("of: expected the network that is followed, got none; give of=NAME")
        if self.rule == "frozen" and not self.run:
            raise ValueError("run: expected the run that the frozen network is of, got none; give run=FOLDER")

    def resolved(self, train: TrainConfig) -> ResolvedRule:
        """With what is None as `train` says."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return ResolvedRule(**{k: getattr(train, k) if value is None else value for k, value in values.items()})


@dataclass(frozen=True)
class ResolvedRule(RuleConfig):
    """A rule each of whose numbers is given."""

    learning_rate: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class NetworkConfig:
    """model: the network, a configuration of a registered kind; rule: how its parameters move."""

    model: Any = MODELS["digits"]
    rule: RuleConfig = RuleConfig()

    def to_dict(self) -> dict[str, Any]:
        """As one table of plain values: kind, what the model is, and what the rule has other than by default."""
        model = {f.name: getattr(self.model, f.name) for f in fields(self.model)}
        rule = {f.name: v for f in fields(self.rule) if (v := getattr(self.rule, f.name)) != f.default}
        table = {"kind": kind_of(self.model), **model, **rule}
        return {key: plain(value) for key, value in table.items()}

    @classmethod
    def from_dict(cls, table: dict[str, Any], prefix: str) -> NetworkConfig:
        """The inverse. prefix: what stands before a key in a message, "networks.denoiser."."""
        table = dict(table)
        name = prefix.split(".")[1]
        if "kind" not in table and name != "denoiser":
            raise ValueError(
                f"{prefix}kind: expected what the network {name} is ({', '.join(KINDS)}), got none; give "
                f"{setting(prefix + 'kind', 'unet')}, or take networks.denoiser if that is meant"
            )
        kind = table.pop("kind", "unet")
        one_of(prefix + "kind", kind, KINDS, "import the module that registers it first")
        own = {f.name for f in fields(KINDS[kind])}
        names = [f.name for f in fields(RuleConfig) if f.name not in own]
        rule = {key: table.pop(key) for key in list(table) if key in names}
        return cls(build(KINDS[kind], table, prefix, also=names), build(RuleConfig, rule, prefix))
