"""The keys of a configuration, as a help text lists them: each with its default, and the names that it may have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from typing import Any

from ..data.loading import NAMED
from ..engines import ENGINES
from ..models import KINDS, ClassifierConfig
from ..models.blocks import CONDITIONINGS, EMBEDDING_SILUS, POOLINGS, QKVS, RESAMPLINGS, TIMES
from ..models.unet import RESCALES
from ..objectives import OBJECTIVES, PREDICTIONS, TIMESTEPS, VARIANCES, WEIGHTINGS, Denoising, Objective
from ..process import SCHEDULES, SPACINGS
from ..sampling import settings
from ..systems import LIKELIHOODS
from .config import Config
from .networks import RuleConfig
from .rules import RULES
from .toml import plain
from .train import DECAYS

__all__ = ["choices", "describe"]


def choices() -> dict[str, tuple[str, ...]]:
    """The names that a key may have, of each key that has one of a few; those of a user's, once they are registered, too."""
    return {
        "engine": ("auto", *ENGINES), "dtype": ("float32", "bfloat16"), "data.source": (*NAMED, "a path"),
        "networks.denoiser.kind": tuple(KINDS), "networks.denoiser.rule": tuple(RULES),
        "networks.denoiser.resampling": RESAMPLINGS, "networks.denoiser.time": TIMES,
        "networks.denoiser.qkv": QKVS, "networks.denoiser.conditioning": CONDITIONINGS,
        "networks.denoiser.rescale": RESCALES, "networks.denoiser.embedding_silu": EMBEDDING_SILUS,
        "networks.classifier.kind": tuple(KINDS), "networks.classifier.pooling": POOLINGS,
        "schedule.kind": tuple(SCHEDULES), "objective.kind": tuple(OBJECTIVES), "objective.prediction": PREDICTIONS,
        "objective.weighting": WEIGHTINGS, "objective.variance": VARIANCES, "objective.timesteps": TIMESTEPS,
        "objective.likelihood": LIKELIHOODS,
        "train.decay": DECAYS, "sample.method": settings.METHODS, "sample.spacing": tuple(SPACINGS),
        "sample.variance": settings.VARIANCES, "sample.threshold": settings.THRESHOLDS,
    }  # fmt: skip


def describe(tables: Iterable[str] = ()) -> str:
    """A line a key of the preset digits, and of what else a classifier and objectives of other kinds have: its default, and
    the names that it may have, or the key that it follows.

    tables: only their keys."""
    known, lines = choices(), []
    table = Config().to_dict()
    table["networks"]["denoiser"] |= asdict(RuleConfig())
    table["networks"]["classifier"] = {"kind": "classifier", "pooling": ClassifierConfig().pooling}
    for key, value, kinds in _with_other_kinds(_leaves(table)):
        if not tables or key.split(".")[0] in tables:
            names = ("false", "true") if isinstance(value, bool) else known.get(key, ())
            if value is None:
                value, names = "", (f"as train.{key.split('.')[-1]}",)
            told = [", ".join(names)] * bool(names) + [f"of {', '.join(kinds)}"] * bool(kinds)
            lines.append((f"{key}={value if isinstance(value, str) else json.dumps(value)}", "; ".join(told)))
    width = max(len(text) for text, names in lines if names)
    return "".join(f"  {text:<{width}}  {names}".rstrip() + "\n" for text, names in lines)


def _leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _with_other_kinds(leaves: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any, list[str]]]:
    """(key, default, kinds) of these leaves, and behind those of the objective the fields of objectives of other kinds: a
    line for each default that differs, with the kinds that have it."""
    others: dict[tuple[str, str], tuple[Any, list[str]]] = {}
    own = {f.name for cls in (Objective, Denoising) for f in fields(cls)}
    for kind, cls in OBJECTIVES.items():
        for f in fields(cls):
            if f.name not in own:
                default = f.default_factory() if f.default_factory is not MISSING else f.default
                others.setdefault((f"objective.{f.name}", repr(default)), (plain(default), []))[1].append(kind)
    before = ""
    for key, value in leaves:
        if before.startswith("objective.") and not key.startswith("objective."):
            yield from ((name, default, kinds) for (name, _), (default, kinds) in others.items())
        before = key
        yield key, value, []
