"""The ends: alpha_bar = 0 and 1, beta of 1e-10, 10^5 elements, in half and single precision, against 50-digit coefficients.

Every function that mixes arrays is linear in them, so its exact value is the sum of its arrays times factors made here of
beta alone, in 50 digits. What rounding must do is a few last digits of the sum of the magnitudes.
"""

import importlib
from functools import cache
from math import fsum

import mpmath
import numpy as np
import pytest

from refdiff.process import (
    CONVERSIONS,
    PREDICTIONS,
    ancestral_step,
    classifier_free_guidance,
    classifier_guidance,
    constant,
    convert,
    cosine,
    ddim_step,
    decoder_log_likelihood,
    dynamic_threshold,
    from_beta,
    kl_gaussian,
    l_hybrid,
    l_simple,
    l_simple_backward,
    l_vlb_term,
    l_weighted,
    l_weighted_backward,
    linear,
    posterior_mean,
    posterior_mean_from_eps,
    prior_matching,
    q_between,
    q_sample,
    q_step,
    rescale_zero_terminal_snr,
    rescaled_guidance,
    target,
)

SCHEDULES = {
    "linear": linear(),
    "from 1e-8": linear(1000, 1e-8, 0.02),
    "1e-7": constant(1000, 1e-7),
    "1e-10": constant(100, 1e-10),
    "cosine": cosine(20000),
    "terminal": rescale_zero_terminal_snr(linear()),
    "one step": from_beta([1.0]),
    "two steps": from_beta([1e-9, 1.0]),
}
ELEMENTS = 25_000  # of each of the samples where they are summed or sorted
SOME = 1_500  # where each is by itself


@pytest.fixture(params=["float16", "float32"], scope="module")
def dtype(request):
    """Of NumPy; tests/peers asks the same of PyTorch's."""
    return request.param


@pytest.fixture(params=["float16"])
def half(request):
    return request.param


@cache
def exact(name):
    """alpha_t and beta_t as 50-digit numbers, and alpha_bar_t, for t from 0."""
    schedule = SCHEDULES[name]
    with mpmath.workdps(50):
        beta = [mpmath.mpf(b) for b in schedule.beta.tolist()]
        alpha = [mpmath.mpf(a) if b > 0.5 else 1 - b for a, b in zip(schedule.alpha.tolist(), beta, strict=True)]
        beta = [1 - a for a in alpha]
        alpha_bar = [mpmath.mpf(1)]
        for a in alpha[1:]:
            alpha_bar.append(alpha_bar[-1] * a)
    return alpha, beta, alpha_bar


def at(name, t):
    """What the factors are made of: a, s, and those of t - 1; alpha and beta of the step."""
    alpha, beta, alpha_bar = exact(name)
    root = mpmath.sqrt
    now, before = alpha_bar[t], alpha_bar[max(t - 1, 0)]
    return {
        "a": root(now), "s": root(1 - now), "a0": root(before), "s0": root(1 - before),
        "alpha": alpha[t], "beta": beta[t],
    }  # fmt: skip


def of_mu(v):
    """The factors of x_0 and x_t in the posterior's mean."""
    return v["a0"] * v["beta"] / v["s"] ** 2, mpmath.sqrt(v["alpha"]) * v["s0"] ** 2 / v["s"] ** 2


def parts(kind, v):
    """The factors of x_0 and of eps in a kind of prediction."""
    c0, ct = of_mu(v)
    return {
        "x0": (1, 0), "eps": (0, 1), "v": (-v["s"], v["a"]), "score": (0, -1 / v["s"]),
        "mu": (c0 + ct * v["a"], ct * v["s"]),
    }[kind]  # fmt: skip


def conversion(source, kind):
    """The factors of x_t and of the prediction: x_t and the source are solved for x_0 and eps."""

    def factors(v):
        (p, q), (r, w) = parts(source, v), parts(kind, v)
        if p == r == 0:  # one from the other, without x_t
            return 0, w / q
        determinant = v["a"] * q - v["s"] * p
        return (r * q - w * p) / determinant, (v["a"] * w - v["s"] * r) / determinant

    return factors


def pair(f):
    return lambda v: f(**v)


# name -> the function of (schedule, x, y, t), and the factors of x and of y.
MIXED = {
    "q_step": (lambda s, x, y, t: q_step(s, x, t, y), pair(lambda alpha, beta, **_: (alpha**0.5, beta**0.5))),
    "q_sample": (lambda s, x, y, t: q_sample(s, x, t, y), pair(lambda a, s, **_: (a, s))),
    "q_between": (lambda s, x, y, t: q_between(s, x, np.zeros_like(t), t, y), pair(lambda a, s, **_: (a, s))),
    "posterior_mean": (lambda s, x, y, t: posterior_mean(s, y, x, t), of_mu),
    "posterior_mean_from_eps": (
        lambda s, x, y, t: posterior_mean_from_eps(s, x, y, t),
        pair(lambda alpha, beta, s, **_: (1 / alpha**0.5, -beta / s / alpha**0.5)),
    ),
    "classifier_guidance": (
        lambda s, x, y, t: classifier_guidance(s, x, t, x, y, 3.0),
        pair(lambda s, **_: (1, -3 * s)),
    ),
    "classifier_free_guidance": (lambda s, x, y, t: classifier_free_guidance(x, y, 3.0), lambda v: (3, -2)),
    **{f"target {k}": (lambda s, x, y, t, k=k: target(s, k, x, y, t), lambda v, k=k: parts(k, v)) for k in PREDICTIONS},
    **{
        f"{b}_from_{a}": (lambda s, x, y, t, a=a, b=b: convert(s, x, t, y, a, b), conversion(a, b))
        for a, b in CONVERSIONS
    },
}
UNSIGNALLED = [n for n in MIXED if n.endswith(("_from_eps", "_from_score")) and n[:3] not in ("eps", "sco")]


def made(values, dtype):
    """An array of this dtype, and its values in float64."""
    library, _, name = dtype.rpartition(".")
    if library:
        module = importlib.import_module(library)
        array = module.from_numpy(values).to(getattr(module, name))
        return array, array.double().numpy()
    return values.astype(name), values.astype(name).astype(np.float64)


def info(dtype):
    """The distance of 1 to its neighbour, the largest number and the smallest."""
    return {
        "float16": (2.0**-10, 65504.0, 2.0**-24), "float32": (2.0**-23, 3.4e38, 2.0**-149),
        "bfloat16": (2.0**-7, 3.3e38, 2.0**-133),
    }[dtype.rpartition(".")[2]]  # fmt: skip


def allowed(dtype):
    """Last digits. Coefficients of float16 below 6e-5 have fewer: the smallest is 6e-8."""
    return 20 if dtype.endswith("float16") and "bfloat" not in dtype else 4


def host(array):
    return array.double().numpy() if hasattr(array, "double") else array.astype(np.float64)


def held(got, factors, arrays, dtype, digits):
    """No NaN, and within so many last digits of what is exact, where that is a number of the dtype."""
    eps, largest, smallest = info(dtype)
    expected = sum(f * x for f, x in zip(factors, arrays, strict=True))
    size = sum(np.abs(f * x) for f, x in zip(factors, arrays, strict=True))
    assert not np.isnan(got).any()
    fits = size < largest / 4
    off = np.abs(got - expected)[fits] / (eps * size + smallest)[fits]
    assert off.size == 0 or off.max() <= digits, f"{off.max():.3g} last digits"


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_mixture_of_arrays_is_right_to_its_last_digits_at_both_ends(name, dtype):
    schedule, T = SCHEDULES[name], SCHEDULES[name].T
    every = np.unique([1, 2, T // 2, T - 1, T])
    rng = np.random.default_rng(5)
    for function, (call, factors) in MIXED.items():
        t = every[(every >= 1) & (every <= T)]
        if function in UNSIGNALLED and schedule.alpha_bar[T] == 0:
            t = t[:-1]
        if not len(t):
            continue
        values = rng.standard_normal((2, len(t), SOME))
        if function.endswith("_from_score"):  # as large as scores are
            values[1] = np.clip(values[1] / np.sqrt(schedule.one_minus_alpha_bar[t])[:, None], -6e4, 6e4)
        (x, x64), (y, y64) = (made(v, dtype) for v in values)
        with mpmath.workdps(50), np.errstate(over="ignore"):
            exactly = np.array([[float(f) for f in factors(at(name, i))] for i in t.tolist()])
            digits = allowed(dtype)
            try:
                held(host(call(schedule, x, y, t)), exactly.T[..., None], (x64, y64), dtype, digits)
                one = host(call(schedule, x[-1:, :], y[-1:, :], t[-1].item()))
                held(one, exactly[-1][:, None, None], (x64[-1:], y64[-1:]), dtype, digits)
            except AssertionError as error:
                raise AssertionError(f"{function}: {error}") from None


@pytest.mark.parametrize("name", SCHEDULES)
def test_single_steps_of_the_samplers_are_right_at_both_ends(name, dtype):
    schedule, T = SCHEDULES[name], SCHEDULES[name].T
    values = np.random.default_rng(6).standard_normal((3, 4, SOME))
    (x, x64), (x0, x064), (z, z64) = (made(v, dtype) for v in values)
    digits = allowed(dtype)
    for t in sorted({1, 2, T // 2, T - 1, T} & set(range(1, T + 1))):
        with mpmath.workdps(50):
            v = at(name, t)
            c0, ct = of_mu(v)
            sigma = mpmath.sqrt(v["beta"]) * v["s0"] / v["s"]
            eta = mpmath.mpf(0.5)
            along = v["s0"] * mpmath.sqrt(v["alpha"] * v["s0"] ** 2 + (1 - eta**2) * v["beta"]) / v["s"]
            plain, direct = ([float(f) for f in row] for row in ((ct, c0, sigma), (along, v["a0"], eta * sigma)))
        held(host(ancestral_step(schedule, x, t, t - 1, x0, z)), plain, (x64, x064, z64), dtype, digits)
        held(host(ddim_step(schedule, x, t, t - 1, x0, x, 0.5, z)), direct, (x64, x064, z64), dtype, digits)


@pytest.mark.parametrize(
    ("size", "n"), [(0.01, 70_000), (1.0, 70_000), (1.0, 1_000_000), (200.0, 70_000), (3e-3, 70_000)]
)
def test_the_mean_of_many_squares_neither_overflows_nor_vanishes(dtype, size, n):
    eps, _, smallest = info(dtype)
    prediction, exactly = made(np.full((n, 1), size), dtype)
    loss, difference = l_simple(prediction, 0 * prediction)
    expected = float(exactly[0, 0]) ** 2
    assert loss.dtype == difference.dtype == prediction.dtype
    within = (8 if "float32" in dtype else 1) * eps * expected + smallest  # in float32 the sum itself rounds
    assert abs(float(loss) - expected) <= within
    weighted, saved = l_weighted(prediction, 0 * prediction, np.full(n, 0.5))
    assert abs(float(weighted) - expected / 2) <= within
    for gradient, scale in ((l_simple_backward(loss, difference), 2), (l_weighted_backward(loss, saved), 1)):
        assert gradient.dtype == prediction.dtype
        expected_gradient = scale * float(loss) * exactly / n
        assert np.abs(host(gradient) - expected_gradient).max() <= 2 * eps * expected_gradient[0, 0] + smallest


def test_losses_of_random_numbers_are_their_exact_sums(dtype):
    eps, _, smallest = info(dtype)
    rng = np.random.default_rng(3)
    (p, _), (y, _) = (made(v, dtype) for v in rng.standard_normal((2, 5, ELEMENTS)))
    weight = np.array([0.0, 2e-9, 1e-3, 1.0, 1e5])
    loss, difference = l_simple(p, y)
    squares = host(difference) ** 2
    assert abs(float(loss) - fsum(squares.ravel()) / squares.size) <= 4 * eps * float(loss)
    weighted, saved = l_weighted(p, y, weight)
    expected = fsum((weight[:, None] * squares).ravel()) / squares.size
    assert abs(float(weighted) - expected) <= 4 * eps * expected
    one, large = made(np.ones(()), dtype)[0], 1000 * difference
    gradients = [(l_weighted_backward(dloss, saved), weight[:, None]) for dloss in (1.0, one)]
    gradients += [(l_simple_backward(dloss, large), 1000) for dloss in (1.0, one)]
    gradients += [(l_weighted_backward(1e9, (large, 1e-9)), 1000)]  # a loss that is scaled, as half precision needs
    for gradient, of in ((host(gradient), of) for gradient, of in gradients):
        expected_gradient = 2 * of * host(difference) / squares.size
        assert np.all(np.abs(gradient - expected_gradient) <= 2 * eps * np.abs(expected_gradient) + smallest)


def test_dynamic_thresholds_of_many_elements(dtype):
    x, exactly = made(3 * np.random.default_rng(4).standard_normal((4, ELEMENTS)), dtype)
    limit = np.quantile(np.abs(exactly), 0.995, axis=1, keepdims=True)
    got = host(dynamic_threshold(x, 0.995))
    assert np.abs(got).max() <= 1
    assert np.abs(got - exactly.clip(-limit, limit) / limit).max() <= 4 * info(dtype)[0]


@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_rescaled_guidance_of_many_elements(dtype, size):
    """Squares of 1e-4 are nothing in half precision, and the sum of those of 300 is beyond it."""
    (x, x64), (y, y64) = (
        made(size * s * np.random.default_rng(4).standard_normal((3, ELEMENTS)) + size, dtype) for s in (1, 5)
    )
    for phi in (0.7, 1.0):
        ratio = (x64.std(axis=1) / y64.std(axis=1))[:, None]
        got, expected = host(rescaled_guidance(x, y, phi)), phi * ratio * y64 + (1 - phi) * y64
        eps, _, smallest = info(dtype)
        assert np.all(np.abs(got - expected) <= 4 * eps * np.abs(expected) + smallest)


def test_the_bound_asks_for_more_digits_than_half_precision_has(half):
    x, _ = made(np.random.default_rng(4).uniform(-0.9, 0.9, (2, 3)), half)
    y, _ = made(np.random.default_rng(4).uniform(-0.9, 0.9, (2, 6)), half)
    z, _ = made(host(x), half.replace(half.rpartition(".")[2], "float64"))
    for call in (
        lambda: kl_gaussian(z, x, z, z),
        lambda: kl_gaussian(z, z, z, x),
        lambda: decoder_log_likelihood(z, z, x, None),
        lambda: l_vlb_term(linear(10), x, z, 3, z, z, None),
        lambda: prior_matching(linear(10), x),
        lambda: l_hybrid(linear(10), "eps", x, x, 3, y, bins=None),
    ):
        with pytest.raises(
            ValueError, match=r"expected float32 or float64, got .*float16; cast it yourself, say to float32"
        ):
            call()
