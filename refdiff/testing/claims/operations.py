"""Claims about the operations of the engines: convolution, embeddings, dropout, the loss, and every backward there is."""

from __future__ import annotations

import math
from fractions import Fraction
from inspect import signature
from itertools import product
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...engines import cpu, reference
from ...random import Sequence, bits
from ..claim import claim
from ..derivatives import backward_errors
from ..measures import relative_error
from ..strategies import seeds

# --- convolution ---


def _loops(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """The sum of the equation, term by term."""
    (n, h, wide, _), (kh, kw, _, c_out) = x.shape, w.shape
    rows, columns = ((size + sum(padding) - k) // stride + 1 for size, k in ((h, kh), (wide, kw)))
    y = np.zeros((n, rows, columns, c_out))
    for p, r, s, i, j in product(range(n), range(rows), range(columns), range(kh), range(kw)):
        at = r * stride + i - padding[0], s * stride + j - padding[0]
        if 0 <= at[0] < h and 0 <= at[1] < wide:
            for o in range(c_out):
                y[p, r, s, o] += sum(
                    a * c for a, c in zip(x[p, at[0], at[1]].tolist(), w[i, j, :, o].tolist(), strict=True)
                )
    return y + b


@claim(
    r"y_{n,r,s,o} = b_o + \sum_{i,j,c} x_{n,\, r m + i - p,\, s m + j - p,\, c}\, W_{i,j,c,o}",
    source="[Winograd] eq. 1", of=reference.conv2d, against="the sum term by term", bound=1e-14, seed=seeds(),
    filters=st.tuples(st.integers(1, 4), st.integers(1, 4)), size=st.tuples(st.integers(4, 6), st.integers(4, 7)),
    stride=st.integers(1, 3), padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)  # fmt: skip
def convolution_is_its_sum(
    seed: int, filters: tuple[int, int], size: tuple[int, int], stride: int, padding: tuple[int, int]
) -> float:
    """Any filter, stride and padding, zeros outside; relative to the size of the terms."""
    rng = np.random.default_rng(seed)
    x, w, b = rng.standard_normal((2, *size, 3)), rng.standard_normal((*filters, 3, 2)), rng.standard_normal(2)
    y, _ = reference.conv2d(x, w, b, stride, padding)
    return relative_error(y, _loops(x, w, b, stride, padding))


@claim(
    r"Y = A^\top \big[(G g G^\top) \odot (B^\top d B)\big] A",
    source="[Winograd] section 4", of=cpu.conv2d, against="the sum of products, in float64", bound=1e-5, seed=seeds(),
    images=st.integers(1, 9), size=st.sampled_from([(8, 8), (9, 10), (12, 7), (16, 16)]), examples=15,
)  # fmt: skip
def tiles_of_winograd_give_the_same_convolution(seed: int, images: int, size: tuple[int, int]) -> float:
    """3x3 filters of the fast engine, float32, forward and both gradients, relative in norm: sizes that tiles fit and sizes
    that they do not, for tiles of 2x2 and 4x4 outputs."""
    rng = np.random.default_rng(seed)
    x, w, b, dy = (
        rng.standard_normal(s, dtype=np.float32)
        for s in ((images, *size, 16), (3, 3, 16, 24), (24,), (images, *size, 24))
    )
    y, saved = cpu.conv2d(x, w, b)
    dx, g = cpu.conv2d_backward(dy, saved)
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = {(i, j): wide[:, i : i + size[0], j : j + size[1]] for i in range(3) for j in range(3)}
    expected = sum(windows[at] @ w[at].astype(np.float64) for at in windows) + b
    dw = np.array(
        [[np.einsum("nhwc,nhwo->co", windows[i, j], dy.astype(np.float64)) for j in range(3)] for i in range(3)]
    )
    dwide = np.zeros_like(wide)
    for i, j in windows:
        dwide[:, i : i + size[0], j : j + size[1]] += dy @ w[i, j].T.astype(np.float64)
    return max(relative_error(y, expected), relative_error(g["weight"], dw), relative_error(dx, dwide[:, 1:-1, 1:-1]))


# --- embeddings, dropout, the loss ---


@claim(
    r"e(t + k) = R(k)\, e(t),\quad \omega_i = 10000^{-i / (h - 1)}\ \text{or}\ 10000^{-i / h}",
    source="[Attention] section 3.5, [DDPM], [ADM]", of=reference.time_embedding,
    against="50-digit arithmetic, and a rotation that does not know t", bound=1e-12, channels=st.integers(4, 33),
    convention=st.sampled_from(["ddpm", "adm"]), t=st.integers(0, 1000), k=st.integers(0, 1000),
)  # fmt: skip
def a_shift_in_time_rotates_the_embedding(channels: int, convention: str, t: int, k: int) -> float:
    """Each pair (sin, cos) turns by omega_i k, from 1 down to 1 / 10000 exactly (ddpm) or nearly (adm); sines come first in
    one convention, cosines in the other; an odd place is 0. In units of the angle, which is as exact as t omega."""
    half = channels // 2
    (now, later), _ = reference.time_embedding(np.array([t, t + k]), channels, convention, np.float64)
    if channels % 2 and (now[-1] or later[-1]):
        return np.inf
    first, second = (slice(0, half), slice(half, 2 * half))
    (sin, cos), (sin_k, cos_k) = (
        (e[first], e[second]) if convention == "ddpm" else (e[second], e[first]) for e in (now, later)
    )
    with mpmath.workdps(50):
        omega = [mpmath.mpf(10000) ** (-mpmath.mpf(i) / (half - (convention == "ddpm"))) for i in range(half)]
        exact = np.array([[float(f(t * w)) for w in omega] for f in (mpmath.sin, mpmath.cos)])
        turn = np.array([[float(f(k * w)) for w in omega] for f in (mpmath.sin, mpmath.cos)])
    rotated = [sin * turn[1] + cos * turn[0] - sin_k, cos * turn[1] - sin * turn[0] - cos_k]
    return float(max(np.abs(rotated).max(), np.abs(exact - [sin, cos]).max()))


@claim(
    r"y = \frac{m}{1 - p}\, x,\quad \Pr(m = 1) = 1 - p,\quad \mathbb E[y] = x",
    source="[Dropout]", of=reference.dropout, against="rational arithmetic on the random words, and the binomial",
    bound=5.0, seed=seeds(), rate=st.floats(0, 0.9), examples=15,
)  # fmt: skip
def dropout_keeps_the_mean(seed: int, rate: float) -> float:
    """How many of 81920 elements are dropped, in standard errors. Which is exact: those whose word + 1/2 is at most 2^32 p,
    and no others; the rest become x / (1 - p); the same key drops the same."""
    x = np.broadcast_to(1 + np.random.default_rng(seed).random(20), (4096, 20)).copy()
    key = Sequence(seed, 1 << 16)
    y, _ = reference.dropout(x, rate, key)
    limit = Fraction(rate) * (1 << 32) - Fraction(1, 2)
    dropped = bits(key, np.arange(4096), 20) <= math.floor(limit) if limit >= 0 else np.zeros(x.shape, bool)
    scaled = np.where(dropped, 0.0, x / (1 - rate))
    again, _ = reference.dropout(x, rate, key)
    if not np.array_equal(y == 0, dropped) or not relative_error(y, scaled) <= 1e-15 or not np.array_equal(y, again):
        return np.inf
    expected = rate * dropped.size
    return float(abs(dropped.sum() - expected) / (math.sqrt(expected * (1 - rate)) + 1))


@claim(
    r"L_n = \frac{w_n}{D} \sum_i (x_{n,i} - y_{n,i})^2",
    source="[DDPM] eq. 14", of=reference.squared_error, against="exact rational arithmetic", bound=1e-15, seed=seeds(),
    n=st.integers(1, 4), size=st.integers(1, 60),
)  # fmt: skip
def the_loss_of_a_sample_is_the_weighted_mean_of_its_squares(seed: int, n: int, size: int) -> float:
    """Over the elements of each sample by itself."""
    rng = np.random.default_rng(seed)
    (x, y), weight = rng.standard_normal((2, n, size)), rng.uniform(0.1, 3, n)
    loss, _ = reference.squared_error(x, y, weight)
    squares = [
        Fraction(w) * sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(*rows, strict=True)) / size
        for w, *rows in zip(weight.tolist(), x.tolist(), y.tolist(), strict=True)
    ]
    return max(abs(float(a) / float(b) - 1) for a, b in zip(loss, squares, strict=True))


@claim(
    r"\log \Sigma = \tfrac{1 + v}{2} \log \beta_t + \tfrac{1 - v}{2} \log \tilde\beta_t,\quad L_{t-1} ="
    r" D_{KL}\big(\mathcal N(\tilde\mu, \tilde\beta_t) \,\|\, \mathcal N(\mu, \Sigma)\big) / (D \log 2)",
    source="[DDPM] eq. 5, [IDDPM] eq. 15", of=reference.variational_term, against="50-digit arithmetic", bound=1e-13,
    seed=seeds(), gap=st.floats(-18, 0).map(lambda e: 10**e), away=st.floats(-9, 1).map(lambda e: 10**e),
)  # fmt: skip
def the_bound_of_a_learned_variance_keeps_its_digits(seed: int, gap: float, away: float) -> float:
    """For gaps between log beta_t and log beta_tilde_t down to 1e-18, and means 1e-9 to 10 deviations apart."""
    rng = np.random.default_rng(seed)
    v, m, m_true = rng.standard_normal((3, 1, 3))
    log_variance, half_gap, zero = rng.uniform(-12, 0, 1), np.array([gap]), np.zeros(1)
    m_true = m + away * np.exp(0.5 * log_variance) * m_true
    term, _ = reference.variational_term(v, m, m, m_true, log_variance, half_gap, zero, None)
    with mpmath.workdps(60):
        total = mpmath.mpf(0)
        for each, one, other in zip(v[0].tolist(), m[0].tolist(), m_true[0].tolist(), strict=True):
            d, before = (1 + mpmath.mpf(each)) * mpmath.mpf(gap), mpmath.mpf(float(log_variance[0]))
            square = (mpmath.mpf(one) - mpmath.mpf(other)) ** 2
            total += (mpmath.exp(-d) - 1 + d + square * mpmath.exp(-before - d)) / 2
        return float(abs(term[0] / (total / (3 * mpmath.log(2))) - 1))


# --- what holds a network together ---


@claim(
    r"y = x W + b,\quad y_{2h+i,\, 2w+j} = x_{h,w},\quad y_{h,w} = \tfrac14 \textstyle\sum_{i,j} x_{2h+i,\, 2w+j},\quad"
    r" [a, b],\quad x + e",
    source="[DDPM] appendix B", of="refdiff.engines.reference", against="rational arithmetic, element by element",
    bound=1e-15, seed=seeds(), size=st.tuples(st.integers(1, 3), st.integers(1, 3)), channels=st.integers(1, 5),
)  # fmt: skip
def layers_joins_and_resampling_are_what_they_say(seed: int, size: tuple[int, int], channels: int) -> float:
    """Linear layers, doubling by repetition, halving by means, concatenation and its parts, a vector added at all positions,
    rows of a table, the same numbers in another shape; what only moves numbers must not change a bit."""
    (h, w), c, rng = size, channels, np.random.default_rng(seed)
    x, other, e = (
        rng.standard_normal((2, 2 * h, 2 * w, c)),
        rng.standard_normal((2, 2 * h, 2 * w, 2)),
        rng.standard_normal((2, c)),
    )
    weight, bias = rng.standard_normal((c, 3)), rng.standard_normal(3)
    joined, doubled = reference.concat(x, other)[0], reference.upsample_nearest(x)[0]
    added, (first, second) = reference.broadcast_add(x, e)[0], reference.split(np.concatenate([x, 2 * x], -1), 2)[0]
    index = rng.integers(0, 2, (3, 2))
    same = [np.array_equal(reference.reshape(x, (-1, c))[0].ravel(), x.ravel()), np.array_equal(first * 2, second)]
    same += [np.array_equal(reference.embedding(index, e)[0][i, j], e[index[i, j]]) for i in range(3) for j in range(2)]
    same += [np.array_equal(reference.add(x, doubled[:, ::2, ::2])[0], 2 * x)]
    errors = []
    for n, i, j in np.ndindex(2, 2 * h, 2 * w):
        same += [joined[n, i, j].tolist() == x[n, i, j].tolist() + other[n, i, j].tolist()]
        same += [(doubled[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] == x[n, i, j]).all()]
        same += [added[n, i, j].tolist() == [p + q for p, q in zip(x[n, i, j].tolist(), e[n].tolist(), strict=True)]]
        terms = [
            [Fraction(a) * Fraction(b) for a, b in zip(x[n, i, j].tolist(), column, strict=True)]
            for column in weight.T.tolist()
        ]
        exact = [float(sum(t) + Fraction(b)) for t, b in zip(terms, bias.tolist(), strict=True)]
        sizes = [float(sum(map(abs, t)) + abs(Fraction(b))) for t, b in zip(terms, bias.tolist(), strict=True)]
        errors.append(relative_error(reference.linear(x, weight, bias)[0][n, i, j], exact, sizes))
    for n, i, j, k in np.ndindex(2, h, w, c):
        four = [Fraction(a) for a in x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, k].ravel().tolist()]
        mean = reference.average_pool(x)[0][n, i, j, k]
        errors.append(abs(float(mean) - float(sum(four) / 4)) / float(sum(map(abs, four))))
    return max(errors) if all(same) else np.inf


@claim(
    r"y_i = (1 - a)\, x_{\lfloor u \rfloor} + a\, x_{\lfloor u \rfloor + 1},\quad u = \mathrm{clip}\big((i + \tfrac12)"
    r" \tfrac{S}{L} - \tfrac12,\ 0,\ S - 1\big),\ a = u - \lfloor u \rfloor",
    source="[ADM]", of=reference.resize_bilinear, against="rational arithmetic, pixel by pixel", bound=1e-14, seed=seeds(),
    before=st.tuples(st.integers(1, 6), st.integers(1, 6)), after=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)  # fmt: skip
def a_resized_image_is_linear_between_the_centres_of_its_pixels(
    seed: int, before: tuple[int, int], after: tuple[int, int]
) -> float:
    """From S to L pixels along both axes, larger or smaller; relative to the largest pixel."""
    x, errors = np.random.default_rng(seed).standard_normal((1, *before, 1)), [0.0]
    exact = [[Fraction(a) for a in row] for row in x[0, ..., 0].tolist()]
    y, taps = reference.resize_bilinear(x, after)[0][0, ..., 0], []
    for small, large in zip(before, after, strict=True):
        zero, last = Fraction(0), Fraction(small - 1)
        u = [min(max(Fraction((2 * i + 1) * small, 2 * large) - Fraction(1, 2), zero), last) for i in range(large)]
        taps.append([[(math.floor(v), 1 - v % 1), (min(math.floor(v) + 1, small - 1), v % 1)] for v in u])
    for i, j in np.ndindex(*after):
        value = sum(a * b * exact[h][w] for h, a in taps[0][i] for w, b in taps[1][j])
        errors.append(abs(float(y[i, j]) - float(value)) / float(np.abs(x).max()))
    return max(errors)


# --- backwards ---

P = {"weight": (6,), "bias": (6,)}
X, EPS = np.linspace(-1, 1, 9)[[0, 3, 8, 5, 1, 1]].reshape(2, 3), np.linspace(-2, 1.5, 6).reshape(2, 3)
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {  # shapes of inputs, of parameters, and what gets no gradient
    "adaptive_group_norm_silu": ([(2, 3, 2, 6), (2, 6), (2, 6)], P, {"groups": 3}),
    "add": ([(2, 3), (2, 3)], {}, {}),
    "add_positions": ([(4, 3, 2)], {"weight": (3, 2)}, {}),
    "attention": ([(2, 3, 6), (2, 4, 6), (2, 4, 6)], {}, {"heads": 2}),
    "average_pool": ([(2, 4, 6, 3)], {}, {}),
    "bernoulli_log_likelihood": ([(2, 3)], {}, {"x": 0.5 + 0.5 * X}),
    "broadcast_add": ([(2, 3, 2, 4), (2, 4)], {}, {}),
    "concat": ([(2, 3, 4), (2, 3, 1)], {}, {}),
    "conv2d": ([(2, 5, 6, 3)], {"weight": (3, 2, 3, 4), "bias": (4,)}, {"stride": 2, "padding": (0, 1)}),
    "cross_entropy": ([(3, 5)], {}, {"label": np.array([4, 0, 2])}),
    "cumulative_sum": ([(7,)], {}, {}),
    "diffuse": ([(2,)], {}, {"x": X, "eps": EPS}),
    "dropout": ([(3, 5)], {}, {"rate": 0.3, "key": Sequence(3, 1 << 16)}),
    "expm1": ([(3, 7)], {}, {}),
    "fourier_features": ([(2, 3, 2)], {}, {"exponents": (0, 3)}),
    "gaussian_kl": ([(2, 3), (2,), (2, 3), (2, 3)], {}, {}),
    "gaussian_log_likelihood": ([(2, 3), (2, 3), (2,)], {}, {}),
    "gelu": ([(3, 7)], {}, {}),
    "gelu_tanh": ([(3, 7)], {}, {}),
    "global_average_pool": ([(2, 3, 2, 4)], {}, {}),
    "group_norm": ([(2, 3, 2, 6)], P, {"groups": 3}),
    "group_norm_silu": ([(2, 3, 2, 6)], P, {"groups": 2}),
    "layer_norm": ([(2, 3, 6)], P, {}),
    "levels_log_likelihood": ([(2,)], {}, {"x": X, "eps": EPS, "bins": 9}),
    "linear": ([(2, 3, 5)], {"weight": (5, 4), "bias": (4,)}, {}),
    "log_mean_exp": ([(3, 7)], {}, {}),
    "monotone": ([], {"slope": (1,), "rate": (4,), "shift": (4,), "weight": (4,)}, {"t": np.array([0.1, 0.7, 0.9])}),
    "multiply": ([(2, 3), (2,)], {}, {}),
    "prior_kl": ([(2,)], {}, {"x": X}),
    "relu": ([(3, 7)], {}, {}),
    "reparameterise": ([(2, 3), (2,)], {}, {"eps": EPS}),
    "repeat": ([(2, 3)], {}, {"times": 3}),
    "reshape": ([(2, 6)], {}, {"shape": (3, 4)}),
    "resize_bilinear": ([(2, 3, 4, 2)], {}, {"size": (7, 2)}),
    "sample_sum": ([(3, 2, 4)], {}, {}),
    "scale": ([(2, 3)], {}, {"factor": -0.7}),
    "silu": ([(3, 7)], {}, {}),
    "softmax": ([(2, 3, 5)], {}, {}),
    "softplus": ([(3, 7)], {}, {}),
    "split": ([(2, 3, 6)], {}, {"parts": 3}),
    "squared_error": ([(3, 4)], {}, {"target": np.linspace(-1, 2, 12).reshape(3, 4), "weight": np.array([1.0, 0.5, 2])}),
    "time_embedding": ([(5,)], {}, {"channels": 9, "dtype": np.float64}),
    "upsample_nearest": ([(2, 3, 2, 4)], {}, {}),
    "variational_term": ([(3, 4)], {}, {
        "mean": np.linspace(-1, 1, 12).reshape(3, 4), "x0": np.linspace(-1, 1, 12).reshape(3, 4) - 0.1,
        "posterior_mean": np.linspace(-1, 1, 12).reshape(3, 4) + 0.05, "log_variance": np.array([-3.0, -5, -2]),
        "half_gap": np.array([0.3, 0.1, 1e-3]), "first": np.array([1.0, 0, 0]), "bins": None,
    }),
}  # fmt: skip


@claim(
    r"\langle \bar x, v \rangle = \langle \bar y,\ \mathrm{Im}\, f(x + i h v) / h \rangle",
    source="[ComplexStep]", of="refdiff.engines.reference", against="complex-step derivatives, each operation", bound=1e-13,
    seed=seeds(), examples=10,
)  # fmt: skip
def every_backward_of_the_engine_is_the_derivative_of_its_forward(seed: int) -> float:
    """Of all inputs and parameters, in random directions; that no backward of the engine is left out is asked first. An
    embedding's index does not vary smoothly, `accumulate` is the backward of using a value several times, `posterior_step`
    takes a logarithm below 0: those apart."""
    backwards = {name.removesuffix("_backward") for name in dir(reference) if name.endswith("_backward")}
    if backwards - {"embedding", "posterior_step"} != set(CASES):
        return np.inf
    rng = np.random.default_rng(seed)
    step = reference.posterior_step, reference.posterior_step_backward
    worst = [_embedding_and_accumulate(rng)]
    worst += backward_errors(*step, (-rng.uniform(0.05, 3, 4), rng.standard_normal(4)), rng).values()
    for name, (inputs, parameters, options) in CASES.items():
        operation, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
        arrays = tuple(rng.standard_normal(shape) for shape in inputs)
        p = {key: rng.standard_normal(shape) for key, shape in parameters.items()}

        free = [key for key in signature(operation).parameters if key not in options][: len(arrays)]

        def forward(*x: Any, operation: Any = operation, free: Any = free, options: Any = options) -> Any:
            return operation(**dict(zip(free, x, strict=False)), **(x[-1] if len(x) > len(free) else {}), **options)

        worst.append(max(backward_errors(forward, backward, (*arrays, p) if p else arrays, rng).values()))
    return float(np.max(worst))


def _embedding_and_accumulate(rng: np.random.Generator) -> float:
    index, weight = rng.integers(0, 4, (2, 5)), rng.standard_normal((4, 3))
    table = backward_errors(
        lambda p: reference.embedding(index, **p), reference.embedding_backward, ({"weight": weight},), rng
    )
    dys = rng.standard_normal((3, 2, 4))
    added = [[sum(column) for column in zip(*rows, strict=True)] for rows in zip(*dys, strict=True)]
    return max(*table.values(), relative_error(reference.accumulate(*dys), added))
