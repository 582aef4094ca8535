"""The rules by which parameters move, by name; those of a user are made known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import new_name

__all__ = ["RULES", "Update", "learns", "register_rule"]

Update: TypeAlias = Callable[..., tuple[Any, Any, Any]]

# Ours, which the trainers know; of a user's: its update.
RULES: dict[str, Update | None] = {"adamw": None, "average": None, "follow": None, "frozen": None}


def learns(rule: str) -> bool:
    """Whether the parameters move by a gradient, so that moments and a moving average are kept."""
    return rule not in ("average", "follow", "frozen")


def register_rule(name: str, update: Update) -> None:
    """Make a rule known by this name, as configurations write it: `networks.denoiser.rule = "name"`.

    update(rule, p, g, m, v, count, rate) -> p, m, v for one array of parameters, its gradient and two arrays of moments,
    zero at first, element by element; rule: its `ResolvedRule`, numbers of its own or of [train]; g: clipped; count: of this
    network's updates, from 1; rate: the learning rate. It returns new arrays, which are rounded to the precision of p. On
    the cpu engine it is a function of a module, which worker processes import. ValueError if the name is taken by another
    rule.
    """
    new_name(name)
    if not callable(update):
        raise ValueError(f"update: expected a function of (rule, p, g, m, v, count, rate), got {update!r}")
    if name in RULES and RULES[name] is not update:
        raise ValueError(f"name: expected one that no other rule has, got {name!r}; known are {', '.join(RULES)}")
    RULES[name] = update
