"""The order of convergence of every sampler, measured on data whose flow and whose distribution are known exactly.

    python -m refdiff.testing.orders --out docs          docs/orders.json and the plot made of it, docs/orders.png

A model lives at integers t, and an order shows only where steps can be halved: so the schedule is one of T = 1025 steps
with log sigma evenly spread over them, from 0.02 to 20; a run takes every 1024/n-th. Then each step is equally
long in lambda, none is rounded, and the middle that 2S looks for is there. The last step, from t = 1 to 0, is the same
x0_hat(x_1) for all, so both errors compare with what the exact x_1 would become in it:

    solvers     root mean square distance from the exact flow of 64 points, by RK4 in log sigma with 512 steps
    stochastic  root mean square of E[f(x_0)] less its true value for f = sin x, cos x, sin 2x, cos 2x, where the
                expectation over all the noise is computed, not drawn: backwards through the steps by quadrature
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ..plotting import new_figure
from ..process import (
    GaussianMixture,
    Schedule,
    ancestral,
    ddim,
    ddim_inversion,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_ancestral,
    final,
    from_alpha_bar,
    heun,
    predictor,
    step_variance,
)  # fmt: skip

__all__ = [
    "ODE_SOLVERS",
    "STOCHASTIC",
    "even_log_sigma",
    "main",
    "measure",
    "order",
    "plot",
    "solver_errors",
    "weak_errors",
]

Published = tuple[Callable[..., Any], int]
ODE_SOLVERS: dict[str, Published] = {
    "DDIM": (ddim, 1),
    "DDIM inversion": (ddim_inversion, 1),
    "Euler": (euler, 1),
    "Heun": (heun, 2),
    "DPM-Solver++ 2M": (dpmpp_2m, 2),
    "DPM-Solver++ 2S": (dpmpp_2s, 2),
}
STOCHASTIC: dict[str, Published] = {
    "ancestral, posterior variance": (ancestral, 1),
    "ancestral, beta": (partial(ancestral, variance=step_variance), 1),
    "DDIM, eta = 0.5": (partial(ddim, eta=0.5), 1),
    "Euler ancestral": (euler_ancestral, 1),
}
NUMBERS = (8, 16, 32, 64, 128, 256)
PLANE = GaussianMixture(
    np.array([0.5, 0.2, 0.3]),
    np.array([[1.0, 0.5], [-1.2, 0.3], [0.1, -1.0]]),
    np.array([[[0.2, 0.1], [0.1, 0.15]], [[0.1, 0.0], [0.0, 0.3]], [[0.25, -0.1], [-0.1, 0.1]]]),
)
LINE = GaussianMixture(np.array([0.4, 0.6]), np.array([[-1.1], [0.8]]), np.array([[[0.2]], [[0.3]]]))


def even_log_sigma(T: int = 1025, low: float = 0.02, high: float = 20.0) -> Schedule:
    """log sigma evenly spread from t = 1 to T, sigma^2 = (1 - alpha_bar) / alpha_bar."""
    sigma = np.exp(np.linspace(np.log(low), np.log(high), T))
    return from_alpha_bar(np.concatenate([[1.0], 1 / (1 + sigma**2)]))


def order(errors: Sequence[float]) -> float:
    """The power of 1/n with which the errors fall, from the last two, between which n doubles."""
    return float(np.log2(errors[-2] / errors[-1]))


@cache
def _flow() -> tuple[Schedule, Callable[..., Any], np.ndarray, np.ndarray]:
    """The schedule, the perfect predictor in the plane, and 64 points x_T with the x_1 that the exact flow takes them to."""
    schedule = even_log_sigma()
    T, a, log_sigma = schedule.T, np.sqrt(schedule.alpha_bar), -0.5 * np.log(schedule.snr[1:])

    def slope(y: np.ndarray, t: int) -> np.ndarray:
        """dy / dlog sigma."""
        return np.exp(log_sigma[t - 1]) * PLANE.eps(schedule, a[t] * y, t)

    x = np.random.default_rng(0).standard_normal((64, 2))
    y = x / a[T]
    for t in range(T, 1, -2):
        h = log_sigma[t - 3] - log_sigma[t - 1]
        k1 = slope(y, t)
        k2 = slope(y + h / 2 * k1, t - 1)
        k3 = slope(y + h / 2 * k2, t - 1)
        k4 = slope(y + h * k3, t - 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return schedule, predictor(schedule, partial(PLANE.eps, schedule)), x, a[1] * y


def solver_errors(solver: Callable[..., Any], numbers: Sequence[int] = NUMBERS) -> list[float]:
    """How far from the exact flow a solver of the ODE ends, for each number of steps (divisors of 1024)."""
    schedule, predict, start, x_1 = _flow()
    end = predict(x_1, 1)[0]
    if solver is ddim_inversion:
        start, end = _which_steps_to(x_1), start
    errors = []
    for n in numbers:
        actual = final(solver(schedule, predict, start, range(1, schedule.T + 1, (schedule.T - 1) // n)))
        errors.append(float(np.sqrt(((actual - end) ** 2).mean())))
    return errors


def _which_steps_to(x_1: np.ndarray) -> np.ndarray:
    """The x_0 that the first step of DDIM inversion takes to this x_1, by iteration: the step is a contraction."""
    schedule, predict, _, _ = _flow()
    a, sigma = np.sqrt(schedule.alpha_bar[1]), 1 / np.sqrt(schedule.snr[1])
    x_0 = x_1
    for _ in range(30):
        x_0 = x_1 / a - sigma * predict(a * x_0, 1)[1]
    return x_0


def weak_errors(sampler: Callable[..., Any], numbers: Sequence[int] = NUMBERS) -> list[float]:
    """How wrong the distribution of a stochastic sampler's x_0 is, for each number of steps (divisors of 1024).

    u_t(x) = E[f(x_0) | x_t = x] = E[u_s(x_s) | x_t = x] is kept as a polynomial on |x| <= 6 in all, step after step.
    """
    schedule = even_log_sigma()
    predict = predictor(schedule, partial(LINE.eps, schedule))
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    x, reach = chebyshev.chebpts2(129), 6.0

    def f(x: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(x), np.cos(x), np.sin(2 * x), np.cos(2 * x)], axis=-1)

    def expected(u: Callable[[np.ndarray], np.ndarray], t: int) -> np.ndarray:
        """E[u(x_t)], x_t ~ q."""
        grid = np.linspace(-reach, reach, 4001)
        return np.exp(LINE.log_density(schedule, grid[:, None], t)) @ u(grid) * (grid[1] - grid[0])

    def last(x: np.ndarray) -> np.ndarray:
        return f(predict(x[:, None], 1)[0][:, 0])

    errors = []
    for n in numbers:
        u: Callable[[np.ndarray], np.ndarray] = last
        gap = (schedule.T - 1) // n
        for t in range(1 + gap, schedule.T + 1, gap):
            points, noise = (np.ravel(v)[:, None] for v in np.meshgrid(reach * x, nodes, indexing="ij"))
            _, x_s = next(sampler(schedule, predict, points, [t - gap, t], lambda t, noise=noise: noise))
            values = u(x_s[:, 0].clip(-reach, reach)).reshape(len(x), len(nodes), -1)
            mean = np.einsum("inf,n->if", values, weights / weights.sum())
            coefficients = np.linalg.solve(chebyshev.chebvander(x, len(x) - 1), mean)
            u = partial(_polynomial, coefficients, reach)
        errors.append(float(np.sqrt(((expected(u, schedule.T) - expected(last, 1)) ** 2).mean())))
    return errors


def _polynomial(coefficients: np.ndarray, reach: float, x: np.ndarray) -> np.ndarray:
    return chebyshev.chebval(x / reach, coefficients).T


def measure(numbers: Sequence[int] = NUMBERS) -> dict[str, Any]:
    """For each sampler its errors, its order by the last two of them, and the order published."""

    def table(samplers: dict[str, Published], errors_of: Callable[..., list[float]]) -> dict[str, Any]:
        rows = {}
        for name, (sampler, published) in samplers.items():
            errors = errors_of(sampler, numbers)
            rows[name] = {"published": published, "measured": round(order(errors), 3),
                          "errors": [float(f"{e:.4g}") for e in errors]}  # fmt: skip
        return rows

    return {
        "steps": list(numbers),
        "solvers": table(ODE_SOLVERS, solver_errors),
        "stochastic": table(STOCHASTIC, weak_errors),
    }


def plot(results: dict[str, Any], path: str | Path) -> None:
    """Errors against the number of steps, and lines that fall as published.   ImportError without matplotlib."""
    figure = new_figure(10, 4.2)
    n = np.array(results["steps"], float)
    titles = {
        "solvers": "solvers: distance from the exact flow",
        "stochastic": "stochastic samplers: error of the distribution of $x_0$",
    }
    for axes, (group, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for i, (name, row) in enumerate(results[group].items()):
            axes.loglog(n, row["errors"], color=f"C{i}", marker="osv^Dx"[i], linestyle=["-", "--", ":"][i % 3], markersize=5,
                        linewidth=1.4, label=f"{name}: order {row['measured']:.2f}")  # fmt: skip
        for published in sorted({row["published"] for row in results[group].values()}):
            top = min(row["errors"][0] for row in results[group].values() if row["published"] == published)
            line = 0.55 * top * (n / n[0]) ** -published
            axes.loglog(n, line, color="0.6", linestyle="-", linewidth=0.8)
            axes.text(1.04 * n[-1], line[-1], f"$n^{{-{published}}}$", color="0.4", va="center")
        axes.set(
            title=title, xlabel="steps", ylabel="root mean square error", xticks=n, xlim=(0.9 * n[0], 1.35 * n[-1])
        )
        axes.set_xticklabels([f"{i:.0f}" for i in n])
        axes.minorticks_off()
        axes.grid(True, color="0.92")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write orders.json and orders.png into a folder."""
    parser = argparse.ArgumentParser(prog="python -m refdiff.testing.orders", description=str(__doc__).split("\n")[0])
    parser.add_argument("--out", default="docs", type=Path, help="the folder to write to (default: docs)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    results = measure()
    (out / "orders.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, out / "orders.png")
    for group in ("solvers", "stochastic"):
        for name, row in results[group].items():
            print(f"{name:32} order {row['measured']:.3f}   published {row['published']}")


if __name__ == "__main__":
    main()
