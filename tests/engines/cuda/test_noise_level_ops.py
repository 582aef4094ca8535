"""Noise at a level that is learned, on the CUDA engine against the reference in float64."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.noise_level_ops import MAX_EXPONENTS
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.testing.measures import relative_error

SHAPES = [(5, 1), (3, 7), (2, 4, 4, 3), (1, 24), (2, 2500)]


def exact(a):
    return cuda.host(a).astype(np.float64)


def given(context, *arrays):
    """On the device in float32, and the very same numbers."""
    made = [context.array(a) for a in arrays]
    return made, [exact(a) for a in made]


def near(actual, expected, terms=1, parts=None):
    """float32, to the error of a sum of so many terms. parts: the size of what is summed, if that is much larger."""
    assert (actual.shape, actual.dtype) == (expected.shape, "float32")
    size = np.linalg.norm(expected) if parts is None else parts
    assert np.linalg.norm(exact(actual) - expected) <= bound("float32", terms) * size


@pytest.mark.parametrize("shape", SHAPES)
def test_diffuse(context, shape):
    rng, n = np.random.default_rng(0), shape[0]
    (x, eps, gamma), numbers = given(
        context, rng.uniform(-1, 1, shape), rng.standard_normal(shape), rng.uniform(-14, 9, n)
    )
    z, saved = cuda.diffuse(x, eps, gamma)
    expected, expected_saved = reference.diffuse(*numbers)
    near(z, expected)
    for dtype in ("float32", "bfloat16"):
        dz = context.array(rng.standard_normal(shape), dtype)
        dgamma, again = (cuda.diffuse_backward(dz, saved) for _ in range(2))
        _, _, alpha, sigma = expected_saved
        parts = np.linalg.norm(alpha * sigma * exact(dz) * (alpha * numbers[1] - sigma * numbers[0]))
        near(dgamma, reference.diffuse_backward(exact(dz), expected_saved), z.size // n, parts)
        assert cuda.host(dgamma).tobytes() == cuda.host(again).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", [-13.3, 0.0, 5.0, 25.0])
def test_prior_kl(context, shape, level):
    """Each sample by itself; at a large gamma what is left is of the order of alpha^2 x^2."""
    rng, n = np.random.default_rng(0), shape[0]
    (x, gamma), numbers = given(context, rng.uniform(-1, 1, shape), level + rng.uniform(-1, 1, n))
    kl, saved = cuda.prior_kl(x, gamma)
    expected, expected_saved = reference.prior_kl(*numbers)
    each = rng.standard_normal(n).astype(np.float32)
    for dy, theirs in ((context.array(each), each.astype(np.float64)), (0.3, 0.3)):
        dgamma = cuda.prior_kl_backward(dy, saved)
        near(dgamma, reference.prior_kl_backward(theirs, expected_saved), x.size // n)
    for i in range(n):
        assert abs(exact(kl)[i] - expected[i]) <= bound("float32", x.size // n) * expected[i]


@pytest.mark.parametrize("shape", [(5, 1), (2, 4, 4, 3), (1, 24)])
@pytest.mark.parametrize("bins", [2, 17, 257])
@pytest.mark.parametrize("level", [-16.0, -11.0, -6.0, 0.0, 60.0])
def test_levels_log_likelihood(context, shape, bins, level):
    """From levels that nobody confuses to levels that nobody tells apart: each sample by itself."""
    rng, n = np.random.default_rng(bins), shape[0]
    (x, eps, gamma), numbers = given(
        context,
        2 * rng.integers(0, bins, shape) / (bins - 1) - 1,
        rng.standard_normal(shape),
        level + rng.uniform(-1, 1, n),
    )
    y, saved = cuda.levels_log_likelihood(x, eps, gamma, bins)
    expected, expected_saved = reference.levels_log_likelihood(*numbers, bins)
    each = rng.standard_normal(n).astype(np.float32)
    for i in range(n):  # what underflows is nothing; the reference's own logarithm of 1 + small has 16 digits of 1
        assert abs(exact(y)[i] - expected[i]) <= bound("float32", 16 * x.size // n) * abs(expected[i]) + 1e-12 * x.size
    for dy, theirs in ((context.array(each), each.astype(np.float64)), (0.3, 0.3)):
        dgamma = cuda.levels_log_likelihood_backward(dy, saved)
        wanted = reference.levels_log_likelihood_backward(theirs, expected_saved)
        # A level's part is lost in u_o and (x - v_o) r where these cancel in the sum.
        parts = np.abs(theirs) * np.abs(expected) if np.ndim(theirs) else 0.3 * np.abs(expected)
        assert dgamma.dtype == "float32"
        for a, w, p in zip(exact(dgamma), wanted, np.broadcast_to(parts, n), strict=True):
            assert abs(a - w) <= bound("float32", 64 * x.size // n) * max(abs(w), p) + 1e-12 * x.size


def test_levels_that_the_noise_has_moved(context):
    """The largest term is that of another level, beyond the last one among them; and noise that nobody draws overflows
    nothing."""
    x, eps = np.array([[-1.0, 1, 0.5, -1, 1]]), np.array([[4.0, -5, 5, -30, 30]])
    for level in (-8.0, -5.0, -2.0, 3.0):
        (a, b, gamma), numbers = given(context, x, eps, np.array([level]))
        y, saved = cuda.levels_log_likelihood(a, b, gamma, 17)
        expected, expected_saved = reference.levels_log_likelihood(*numbers, 17)
        near(y, expected, 17)
        near(cuda.levels_log_likelihood_backward(1.0, saved),
             reference.levels_log_likelihood_backward(1.0, expected_saved), 16 * 17)  # fmt: skip


def parameters(k, seed=0):
    rng = np.random.default_rng(seed)
    rate, shift, weight = (scale * rng.standard_normal(k) for scale in (3, 2, 1))
    return np.array([-0.7 if seed else 0.7]), rate, shift, weight


@pytest.mark.parametrize("k", [0, 1, 5, 33, 1024])
@pytest.mark.parametrize("n", [1, 6, 70])
def test_monotone(context, k, n):
    t = np.random.default_rng(n).random(n)
    t[-1] = 1
    t[0] = 0
    given_, numbers = given(context, t, *parameters(k, n))
    ys, saved = cuda.monotone(*given_)
    expected, expected_saved = reference.monotone(*numbers)
    for y, e in zip(ys, expected, strict=True):
        assert (y.shape, y.dtype) == ((n,), "float32")
        np.testing.assert_allclose(cuda.host(y), e, rtol=bound("float32", max(k, 1)), atol=0)
    dys = tuple(context.array(np.random.default_rng(i).standard_normal(n)) for i in (1, 2))
    g, again = (cuda.monotone_backward(dys, saved) for _ in range(2))
    wanted = reference.monotone_backward(tuple(map(exact, dys)), expected_saved)
    assert g.keys() == wanted.keys() == {"slope", "rate", "shift", "weight"}
    by, f, f1, span = expected_saved
    df, df1 = (np.abs(exact(d))[:, None] / span for d in dys)
    for name, w in wanted.items():
        m, m1 = np.abs(by[name][0]), np.abs(by[name][1][:-2])
        near_1 = f[:, None] * (m[-1] + m[-2]), f1[:, None] * (m[-1] + m[-2])
        parts = df * (m[:-2] + m[-2] + near_1[0]) + df1 * (m1 + near_1[1])
        near(g[name], w, 16, np.linalg.norm(parts.sum(axis=0)))
        assert cuda.host(g[name]).tobytes() == cuda.host(again[name]).tobytes()


def test_a_monotone_function_ends_where_it_must(context):
    """0 at 0 and 1 at 1 to the bit, and near 0 with all its digits: no difference of two sums of a thousand."""
    given_, _ = given(context, np.array([0, 1, 1e-6]), *parameters(1024))
    (f, derivative), _ = cuda.monotone(*given_)
    assert cuda.host(f)[:2].tolist() == [0, 1]
    assert cuda.host(f)[2] == pytest.approx(1e-6 * cuda.host(derivative)[0], rel=1e-4)
    expected, _ = reference.monotone(*map(exact, given_))
    assert cuda.host(f)[2] == pytest.approx(expected[0][2], rel=1e-6)


def test_a_straight_line_has_no_gradient(context):
    """Not one of rounding, which Adam would make a step of."""
    t = np.random.default_rng(0).random(40)
    given_, (t64, *_) = given(context, t, *parameters(0))
    (f, derivative), saved = cuda.monotone(*given_)
    assert np.array_equal(exact(f), t64)
    assert np.array_equal(exact(derivative), np.ones(40))
    g = cuda.monotone_backward((f, f), saved)
    assert (exact(g["slope"]).tolist(), g["rate"].shape) == ([0], (0,))


@pytest.mark.parametrize("shape", [(7, 1), (2, 3, 3, 3), (4, 5, 8)])
@pytest.mark.parametrize("exponents", [(), (0,), (6, 7), tuple(range(-2, 3))])
@pytest.mark.parametrize("of_dy", ["float32", "bfloat16"])
def test_fourier_features(context, dtype, shape, exponents, of_dy):
    """Each sine by itself: at an exponent of 7 that of a float32 number is found to its last bits."""
    rng = np.random.default_rng(0)
    x = context.array(rng.uniform(-1, 1, shape), dtype)
    y, saved = cuda.fourier_features(x, exponents)
    expected, expected_saved = reference.fourier_features(exact(x), exponents)
    assert (y.shape, y.dtype) == (expected.shape, dtype)
    assert np.abs(exact(y) - expected).max() <= (2.0**-8 if dtype == "bfloat16" else 4e-7)
    dy = context.array(rng.standard_normal(y.shape), of_dy)
    dx = cuda.fourier_features_backward(dy, saved)
    assert (dx.shape, dx.dtype) == (shape, dtype)
    wanted = reference.fourier_features_backward(exact(dy), expected_saved)
    assert relative_error(exact(dx), wanted) <= bound(dtype, 1 + 2 * len(exponents))


@pytest.mark.parametrize("n", [1, 9, 300])
def test_posterior_step(context, n):
    """From the first step of a long chain, where 1 - alpha_bar is 1e-6, to the last, where alpha_bar is."""
    rng = np.random.default_rng(n)
    (log_alpha_bar, logit), numbers = given(context, -(10 ** rng.uniform(-6, 1.1, n)), rng.uniform(-12, 3, n))
    ys, saved = cuda.posterior_step(log_alpha_bar, logit)
    expected, expected_saved = reference.posterior_step(*numbers)
    assert len(ys) == len(expected) == 6
    for y, e in zip(ys, expected, strict=True):
        assert (y.shape, y.dtype) == ((n,), "float32")
        np.testing.assert_allclose(cuda.host(y), e, rtol=1e-6, atol=1e-7)
    dys = tuple(context.array(np.random.default_rng(i).standard_normal(n)) for i in range(6))
    actual = cuda.posterior_step_backward(dys, saved)
    for a, w in zip(actual, reference.posterior_step_backward(tuple(map(exact, dys)), expected_saved), strict=True):
        assert (a.shape, a.dtype) == ((n,), "float32")
        np.testing.assert_allclose(cuda.host(a), w, rtol=1e-6, atol=1e-7)


def test_a_captured_level_follows_what_it_is_given(context):
    """Two learned ends spread over a batch by index 0, a monotone function between them, noise at its level."""
    arena, kept, n = Context(context.device, Arena(context.device, 1 << 18)), [], 4
    rng = np.random.default_rng(0)
    x, eps, t = (
        arena.array(a) for a in (2 * rng.integers(0, 17, (n, 6)) / 16 - 1, rng.standard_normal((n, 6)), rng.random(n))
    )
    p = [arena.array(a) for a in parameters(5)]
    ends, zero = arena.array([[-5.0, 3.0]]), arena.array(np.zeros(n), "int32")

    def run():
        row, of_row = cuda.embedding(zero, ends)
        low, width = (cuda.reshape(part, (n,))[0] for part in cuda.split(row, 2)[0])
        (f, _), of_f = cuda.monotone(t, *p)
        rise, of_rise = cuda.multiply(width, f)
        gamma, _ = cuda.add(low, rise)
        z, of_z = cuda.diffuse(x, eps, gamma)
        y, of_y = cuda.levels_log_likelihood(x, eps, gamma, 17)
        kl, of_kl = cuda.prior_kl(x, gamma)
        dgamma = cuda.accumulate(
            cuda.diffuse_backward(z, of_z),
            cuda.levels_log_likelihood_backward(-1.0, of_y),
            cuda.prior_kl_backward(1.0, of_kl),
        )
        dwidth, df = cuda.multiply_backward(dgamma, of_rise)
        columns = [cuda.reshape(d, (n, 1))[0] for d in (dgamma, dwidth)]
        dends = cuda.embedding_backward(cuda.split_backward(tuple(columns), None), of_row)["weight"]
        kept[:] = y, kl, dends, *cuda.monotone_backward((df, df), of_f).values()

    run()
    graph = arena.capture(run)
    for values in (rng.random(n), np.array([0, 1, 0.5, 0.25])):
        context.device.write(t.pointer, values.astype(np.float32))
        graph.replay()
        low, width = exact(ends)[0]
        t64, p64 = exact(t), [exact(a) for a in p]
        (f, _), of_f = reference.monotone(t64, *p64)
        gamma = low + width * f
        z, of_z = reference.diffuse(exact(x), exact(eps), gamma)
        y, of_y = reference.levels_log_likelihood(exact(x), exact(eps), gamma, 17)
        kl, of_kl = reference.prior_kl(exact(x), gamma)
        dgamma = (reference.diffuse_backward(z, of_z) + reference.levels_log_likelihood_backward(-1.0, of_y)
                  + reference.prior_kl_backward(1.0, of_kl))  # fmt: skip
        dends = np.array([[dgamma.sum(), (dgamma * f).sum()]])
        g = reference.monotone_backward((dgamma * width,) * 2, of_f)
        for actual, wanted in zip(kept, (y, kl, dends, *g.values()), strict=True):
            assert relative_error(exact(actual), wanted) <= 1e-5


def test_what_does_not_fit_is_refused(context):
    x, gamma = context.array(np.zeros((2, 3))), context.array(np.zeros(3))
    with pytest.raises(AssertionError, match="diffuse"):
        cuda.diffuse(x, x, gamma)
    with pytest.raises(AssertionError, match="at least 2 bins"):
        cuda.levels_log_likelihood(x, x, context.array(np.zeros(2)), 1)
    with pytest.raises(AssertionError, match=f"at most {MAX_EXPONENTS}"):
        cuda.fourier_features(x, tuple(range(MAX_EXPONENTS + 1)))
    with pytest.raises(AssertionError, match="monotone"):
        cuda.monotone(gamma, gamma, gamma, gamma, gamma)
    with pytest.raises(AssertionError, match=r"prior_kl: expected float32 \(2,\)"):
        cuda.prior_kl_backward(gamma, cuda.prior_kl(x, context.array(np.zeros(2)))[1])
