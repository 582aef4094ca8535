"""The likelihood of data under the probability-flow ODE, by the change of density along it [SDE] section 4.3.

With y = x / sqrt(alpha_bar) and sigma^2 = (1 - alpha_bar) / alpha_bar the flow is dy = eps_hat(y, sigma) dsigma, and

    log p(x_0) = log p(y_T) + integral of div_y eps_hat dsigma from 0 to sigma_T        [SDE] eq. 39
               = log p(x_T) + D/2 log alpha_bar_T + the same

D is the number of elements of a sample. For few elements: the exact divergence asks 2 D predictions at each point. How a
step is taken is said in `ode_steps`, and how its error is estimated in `ode_error`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from .arrays import Array, floating, namespace, same_library, same_shape, shape_of
from .ode_error import ErrorOfSteps
from .ode_steps import Point, directional_derivative, fall, first_step, moved, sum_of_sample
from .samplers import Predict, backwards, call_predict
from .schedules import Schedule

__all__ = ["flow_log_likelihood"]


def flow_log_likelihood(
    schedule: Schedule,
    predict: Predict,
    x0: Array,
    timesteps: Sequence[int],
    probes: Array | None = None,
    prior: Callable[[Array], Array] | None = None,
    tolerance: float = 0.01,
) -> Array:
    """log p(x_0) in nats, over the steps from 0 up.   [SDE] eq. 39   x0 (N, ...) -> (N,)

    probes: None for the exact divergence; or (M, N, ...) independent numbers of mean 0 and variance 1 (signs are best),
        for the estimate sum(e . Je) / M of Hutchinson [SDE] eq. 40, for data of many elements.
    prior: log p(x_T) (N, ...) -> (N,); the standard normal density unless given.
    tolerance: nats an element. Where the steps are estimated to err by more, a UserWarning names the worst and the number.
    Error: of second order in the steps, none for data N(m, c I) however long they are; and from central differences 1e-9
        in float64, 1e-4 in float32. The first step, from t = 0 where no model can be asked, takes the score at the first
        of the timesteps for a linear function: it must be small beside the data's details, and its error is estimated too.
        The estimate is made for points as the data have them: where hardly any are, as between narrow modes, both the steps
        and the estimate can be off by nats.
    Where alpha_bar_T = 0 the model is not asked: x_T is noise. ValueError if that is the only step.
    """
    shape, several = shape_of("x0", x0), None if probes is None else shape_of("probes", probes)
    if len(shape) < 2 or (several is not None and (not several or several[1:] != shape)):
        got = shape if several is None else (shape, several)
        raise ValueError(f"x0, probes: expected samples (N, ...), and probes (M, N, ...) or None, got {got}")
    floating("x0", x0)
    if probes is not None:
        same_library("x0", x0, "probes", probes)
    if x0.dtype not in (namespace(x0).float32, namespace(x0).float64):
        raise ValueError(f"x0: expected float32 or float64, since derivatives are differences, got {x0.dtype}; cast it")
    chosen = [t for t, _ in backwards(schedule, timesteps)][::-1]
    if schedule.alpha_bar[chosen[0]] == 0:
        raise ValueError(f"timesteps: expected a step with alpha_bar > 0 first, got t = {chosen[0]}; add earlier ones")
    size = math.prod(x0.shape[1:])
    directions = unit_vectors(x0) if probes is None else probes
    weight = 1.0 if probes is None else 1 / probes.shape[0]

    def slope(x: Array, t: int) -> Array:
        """-score of x_t = eps_hat / sqrt(1 - alpha_bar)."""
        _, eps_hat = call_predict(predict, x, t)
        same_shape(x_t=x, eps_hat=eps_hat)
        return eps_hat / float(schedule.one_minus_alpha_bar[t]) ** 0.5

    def point(x: Array, t: int) -> Point:
        divergence, squares = divergence_and_squares(lambda x: slope(x, t), x, directions)
        return Point(t, x, slope(x, t), weight * divergence, weight * squares)

    here, total, *beyond = first_step(schedule, slope, point, x0, chosen[0])
    error = ErrorOfSteps(schedule, here, *beyond)
    for t in chosen[1:]:
        x = moved(schedule, here, t)
        if schedule.alpha_bar[t] == 0:  # what any model must say of pure noise
            there = Point(t, x, x, 0 * total + size, 0 * total + size)
        else:
            for _ in range(2):
                x = moved(schedule, here, t, x, slope(x, t))
            there = point(x, t)
        error.add(here, there)
        here, total = there, total + fall(schedule, here, there)
    if message := error.message(tolerance):
        warnings.warn(message, stacklevel=2)
    log_prior = prior(here.x) if prior else -0.5 * (sum_of_sample(here.x**2) + size * math.log(2 * math.pi))
    same_shape(**{"the flow's part": total, "prior": log_prior})
    return log_prior + total


def divergence_and_squares(f: Callable[[Array], Array], x: Array, directions: Array) -> tuple[Array, Array]:
    """sum_i d_i . J d_i and sum_i |J d_i|^2, J = df/dx.   x (N, ...), directions (M, N, ...) -> (N,), (N,)."""
    total = squares = 0.0
    for i in range(directions.shape[0]):
        d = directions[i, ...]
        Jd = directional_derivative(f, x, d)
        total, squares = total + sum_of_sample(d * Jd), squares + sum_of_sample(Jd**2)
    return total, squares


def unit_vectors(x: Array) -> Array:
    """The D unit vectors of a sample's space, each for every sample.   (N, ...) -> (D, N, ...)."""
    size = math.prod(x.shape[1:])
    unit = np.broadcast_to(np.eye(size).reshape(size, 1, *x.shape[1:]), (size, *x.shape))
    xp = namespace(x)
    if xp is np:
        return unit.astype(x.dtype)
    import array_api_compat

    return xp.asarray(np.ascontiguousarray(unit), dtype=x.dtype, device=array_api_compat.device(x))
