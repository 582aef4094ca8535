"""What happens to the weights: learning rate, clipping, Adam and AdamW, and the moving average. Trees in, trees out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import RULES, ResolvedRule, Update
from ..models import Tree, flatten, leaves, tree_map, unflatten

__all__ = ["adamw", "clip", "global_norm", "learning_rate", "mixed", "moved", "moving_average", "updated", "zeros_like"]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0, decay: str = "cosine") -> float:
    """The rate of step 1 .. steps: even rise to the peak at `warmup`, then constant or half a cosine [SGDR] eq. 5."""
    if step <= warmup:
        return peak * step / warmup
    if decay == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup + 1)))


def global_norm(g: Tree) -> float:
    """sqrt of the sum of squares of all numbers in the tree, each array's sum in its own precision."""
    return math.sqrt(sum(float(np.vdot(leaf, leaf)) for _, leaf in leaves(g)))


def clip(g: Tree, norm: float, most: float) -> Tree:
    """g scaled so that its global norm, `norm`, is at most `most` [Pascanu] algorithm 1."""
    if norm <= most:  # 0 is the norm of a gradient too
        return g
    scale = most / norm
    return tree_map(lambda leaf: leaf * scale, g)


def adamw(
    p: Tree,
    g: Tree,
    m: Tree,
    v: Tree,
    step: int,
    rate: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[Tree, Tree, Tree]:
    """One step of Adam [Adam] algorithm 1, with decoupled weight decay [AdamW] algorithm 2.   -> new p, m, v

    m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  step counted from 1,
    p <- p - rate (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay p).
    """
    m = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, m, g)
    v = tree_map(lambda v, g: beta2 * v + (1 - beta2) * (g * g), v, g)
    correct1, correct2 = 1 - beta1**step, 1 - beta2**step

    def new(p: Any, m: Any, v: Any) -> Any:
        return p - rate * (m / correct1 / (np.sqrt(v / correct2) + epsilon) + weight_decay * p)

    return tree_map(new, p, m, v), m, v


def moving_average(average: Tree, p: Tree, step: int, decay: float) -> Tree:
    """average <- d average + (1 - d) p, d = min(decay, (1 + step) / (10 + step)), so that early weights are forgotten."""
    return mixed(average, p, min(decay, (1 + step) / (10 + step)))


def mixed(a: Tree, b: Tree, d: float) -> Tree:
    """d a + (1 - d) b."""
    return tree_map(lambda a, b: d * a + (1 - d) * b, a, b)


def zeros_like(p: Tree) -> Tree:
    """A tree of zeros with p's keys and shapes."""
    return tree_map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), p)  # costs no memory before it is written


def moved(
    rule: ResolvedRule, p: Tree, m: Tree, v: Tree, g: Tree, norm: float, count: int, rate: float
) -> tuple[Tree, Tree, Tree]:
    """New p, m, v of a network after update number `count` by its rule, g clipped first; norm: that of g.

    ValueError where a rule of a user's gives other than three arrays of the parameters' shape.
    """
    if rule.max_grad_norm:
        g = clip(g, norm, rule.max_grad_norm)
    update = RULES[rule.rule]
    if update is None:
        return adamw(p, g, m, v, count, rate, rule.weight_decay, *rule.betas)
    of = [flatten(tree) for tree in (p, g, m, v)]
    new = {path: updated(update, rule, [tree[path] for tree in of], count, rate) for path in of[0]}
    return tuple(unflatten({path: values[i] for path, values in new.items()}) for i in range(3))  # type: ignore[return-value]


def updated(
    update: Update, rule: ResolvedRule, arrays: Sequence[np.ndarray], count: int, rate: float
) -> tuple[np.ndarray, ...]:
    """New p, m, v of an array by a user's rule, in the precision of p. arrays: p, g, m, v of one shape. ValueError for other
    than three of it."""
    p, new = arrays[0], update(rule, *arrays, count, rate)
    shapes = [np.shape(a) for a in new] if isinstance(new, tuple) else type(new).__name__
    if shapes != [p.shape] * 3:
        raise ValueError(f"rule {rule.rule!r}: expected new p, m, v of shape {p.shape} each, got {shapes}")
    return tuple(np.asarray(a).astype(p.dtype) for a in new)
