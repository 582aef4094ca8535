"""Variances that are learned: beta_t = sigmoid(logit_t), t = 2 .. T, each step's numbers as functions of all logits, and the
reverse step that is made of them, with their gradients, in operations of an engine; the same in float64.   [DPM]"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import log
from types import ModuleType
from typing import Any

import numpy as np

from ..models import TableConfig
from ..process import Schedule, from_beta
from .system import Asked

__all__ = [
    "bound_table",
    "check_table",
    "first_logits",
    "first_term",
    "gamma_backward",
    "learned_schedule",
    "learned_steps",
    "reverse_kernel",
    "reverse_kernel_backward",
    "step_numbers",
    "step_numbers_backward",
]


def first_logits(T: int) -> tuple[float, ...]:
    """logit beta_2 .. beta_T of beta_t = 1 / (T - t + 2), which ends at 1/2: all but the first step take the same share."""
    return tuple(-log(T - t + 1) for t in range(2, T + 1))


def check_table(networks: dict[str, Any], T: int) -> None:
    """ValueError unless networks.beta is a table of T - 1 logits."""
    beta = networks["beta"]
    if not isinstance(beta, TableConfig) or (beta.rows, beta.width) != (T - 1, 1):
        got = f"{beta.rows} rows of {beta.width}" if isinstance(beta, TableConfig) else type(beta).__name__
        raise ValueError(
            f"networks.beta: expected a table of T - 1 = {T - 1} rows of 1, the logits of beta_2 .. beta_T, got {got}; give "
            "networks.beta.rows, and networks.beta.first"
        )
    learned_schedule(np.broadcast_to(np.reshape(beta.first, (-1, 1)), (T - 1, 1)), 0.5)


def learned_schedule(logits: np.ndarray, first: float) -> Schedule:
    """beta_1 = first, then the sigmoids.   logits (T - 1, 1). ValueError for logits of which they are 0, 1 or no number."""
    with np.errstate(over="ignore"):
        beta = np.concatenate([[first], 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))])
    try:
        return from_beta(beta)
    except ValueError as error:
        raise ValueError(
            f"networks.beta: expected logits whose sigmoids are {str(error).partition('expected ')[2]}; give others as "
            "networks.beta.first, or train with a lower networks.beta.learning_rate"
        ) from None


def step_numbers(
    engine: ModuleType, weight: Any, row: Any, log_first: Any, one: Any
) -> tuple[tuple[Any, tuple[Any, ...]], Any]:
    """logit_t, and what `posterior_step` says of the step t = row + 2: log alpha_bar_{t-1} = log alpha_1 + the sum of
    -softplus(logit_s) over s from 2 to t - 1.

    weight (T - 1, 1), row, log_first = log(1 - beta_1) and one = 1 (N,) -> (logit (N,), six (N,)), saved
    """
    rows, n = weight.shape[0], row.shape[0]
    logits, of_logits = engine.reshape(weight, (rows,))
    lost, of_lost = engine.softplus(logits)  # -log alpha_t
    log_alpha, of_sign = engine.scale(lost, -1.0)
    summed, of_summed = engine.cumulative_sum(log_alpha)
    before, of_before = engine.add(summed, lost)  # without the step's own
    (column, of_column), (own, of_own) = (engine.reshape(a, (rows, 1)) for a in (before, logits))
    table, of_table = engine.concat(column, own)
    read, of_read = engine.embedding(row, table)
    parts, of_parts = engine.split(read, 2)
    (earlier, of_earlier), (logit, of_logit) = (engine.reshape(part, (n,)) for part in parts)
    before_t = engine.affine(one, earlier, log_first, engine.where(one, 1.0, earlier))
    step, of_step = engine.posterior_step(before_t, logit)
    saved = (of_logits, of_lost, of_sign, of_summed, of_before, of_column, of_own, of_table, of_read)
    return (logit, step), (*saved, of_parts, of_earlier, of_logit, of_step)


def step_numbers_backward(engine: ModuleType, dlogit: Any, dstep: tuple[Any, ...], saved: Any) -> Any:
    """A logit moves its own step, and alpha_bar of all later ones.   dlogit (N,), dstep: six (N,) -> dweight (T - 1, 1)"""
    *saved, of_parts, of_earlier, of_logit, of_step = saved
    of_logits, of_lost, of_sign, of_summed, of_before, of_column, of_own, of_table, of_read = saved
    dearlier, dread = engine.posterior_step_backward(dstep, of_step)
    dlogit = engine.reshape_backward(engine.accumulate(dlogit, dread), of_logit)
    dread = engine.split_backward((engine.reshape_backward(dearlier, of_earlier), dlogit), of_parts)
    dcolumn, down = engine.concat_backward(engine.embedding_backward(dread, of_read)["weight"], of_table)
    dsummed, dlost = engine.add_backward(engine.reshape_backward(dcolumn, of_column), of_before)
    dlog_alpha = engine.cumulative_sum_backward(dsummed, of_summed)
    dlost = engine.accumulate(dlost, engine.scale_backward(dlog_alpha, of_sign))
    dlogits = engine.accumulate(engine.softplus_backward(dlost, of_lost), engine.reshape_backward(down, of_own))
    return engine.reshape_backward(dlogits, of_logits)


def gamma_backward(engine: ModuleType, dgamma: Any, saved: Any) -> Any:
    """`step_numbers_backward` of the first of the six numbers, gamma_t, alone.   dgamma (N,) -> dweight (T - 1, 1)"""
    zero, _ = engine.scale(dgamma, 0.0)
    return step_numbers_backward(engine, zero, (dgamma, zero, zero, zero, zero, zero), saved)


def reverse_kernel(
    engine: ModuleType, x: Any, y: Any, logit: Any, root_alpha: Any, root_beta: Any, one: Any, T: int
) -> tuple[tuple[Any, Any], Any]:
    """p(x_{t-1} | x_t = x): the mean sqrt(alpha_t) x + sqrt(beta_t) m, and log sigmoid(logit_t + r / sqrt(T)), (m, r) = y.

    x (N, ..., C), y (N, ..., 2 C), the others and one = 1 (N,) -> (mean, log variance) (N, ..., C), saved
    """
    (m, r), of_split = engine.split(y, 2)
    (kept, of_kept), (moved, of_moved) = engine.multiply(x, root_alpha), engine.multiply(m, root_beta)
    wide, of_wide = engine.multiply(engine.where(one, 1.0, x), logit)
    narrowed, of_narrowed = engine.scale(r, T**-0.5)
    turned, of_turned = engine.scale(engine.add(wide, narrowed)[0], -1.0)
    plus, of_plus = engine.softplus(turned)
    log_variance, of_sign = engine.scale(plus, -1.0)
    saved = (of_split, of_kept, of_moved, of_wide, of_narrowed, of_turned, of_plus, of_sign)
    return (engine.add(kept, moved)[0], log_variance), saved


def reverse_kernel_backward(engine: ModuleType, dp: Any, saved: Any) -> tuple[Any, ...]:
    """dp: of the mean and of the log variance, two (N, ..., C) -> dx, dy, dlogit, droot_alpha, droot_beta."""
    dmean, dlog_variance = dp
    of_split, of_kept, of_moved, of_wide, of_narrowed, of_turned, of_plus, of_sign = saved
    dturned = engine.softplus_backward(engine.scale_backward(dlog_variance, of_sign), of_plus)
    dsum = engine.scale_backward(dturned, of_turned)
    dr, (_, dlogit) = engine.scale_backward(dsum, of_narrowed), engine.multiply_backward(dsum, of_wide)
    (dx, droot_alpha), (dm, droot_beta) = (
        engine.multiply_backward(dmean, of_kept),
        engine.multiply_backward(dmean, of_moved),
    )
    return dx, engine.split_backward((dm, dr), of_split), dlogit, droot_alpha, droot_beta


def first_term(engine: ModuleType, x0: Any, of_square: Any, constant: Any, one: Any) -> Any:
    """L_0 in the mean over x_1, affine in |x_0|^2 by two columns of `bound_table`: no parameter changes it.   -> (N,)"""
    square, _ = engine.sample_sum(engine.multiply(x0, x0)[0])
    return engine.affine(of_square, square, constant, engine.where(one, 1.0, square))


@cache
def bound_table(T: int, first: float, dims: int) -> np.ndarray:
    """Rows, all alike, (1, log(1 - beta_1), beta_1 / 2, dims (log 2 pi beta_1 + 1 - beta_1) / 2, T - 1, 1), from the third
    on in bits: -E log N(x_0; sqrt(1 - beta_1) x_1, beta_1) is affine in |x_0|^2.   -> (T + 1, 6) float64, read-only"""
    constant = dims * (np.log(2 * np.pi * first) + 1 - first) / 2
    bits = np.array([first / 2, constant, T - 1, 1]) / np.log(2)
    table = np.tile([1, np.log1p(-first), *bits], (T + 1, 1))
    table.flags.writeable = False
    return table


def learned_steps(
    denoiser: Asked, table: Asked, T: int, first: float
) -> tuple[Schedule, Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]]:
    """The schedule that was learned, and reverse(x_t, t) -> mean, log variance of p(x_{t-1} | x_t), float64."""
    logits = table({"index": np.arange(T - 1)}).astype(np.float64)
    s = learned_schedule(logits, first)
    of_t = np.concatenate([[0, 0], logits[:, 0]])

    def reverse(x: np.ndarray, t: Any) -> tuple[np.ndarray, np.ndarray]:
        t = np.broadcast_to(t, (len(x),))
        alpha, beta, logit, place = (
            v[t].reshape(-1, *[1] * (x.ndim - 1)) for v in (s.alpha, s.beta, of_t, np.arange(T + 1))
        )
        y = denoiser({"x": x.astype(np.float32), "t": np.maximum(t, 2)}).astype(np.float64)
        m, r = np.where(place > 1, np.split(y, 2, axis=-1), 0)
        log_variance = np.where(place > 1, -np.logaddexp(0, -logit - r * T**-0.5), np.log(beta))
        return np.sqrt(alpha) * x + np.sqrt(beta) * m, log_variance

    return s, reverse
