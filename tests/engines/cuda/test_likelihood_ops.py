"""Likelihoods, divergences and what makes a bound differentiable, on the CUDA engine against the reference in float64."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.testing.measures import relative_error

# One number a sample, fewer elements than a warp, more than a block, one sample, several blocks a sample.
SHAPES = [(7,), (5, 2), (3, 4, 4, 3), (1, 300), (2, 2500)]
MIXED = ["float32", "bfloat16", "mixed"]


def drawn(context, shapes, dtype, seed=0, scale=0.7):
    """Arrays on the device, of one type or of both in turn, and the very same numbers as NumPy's in float64."""
    rng = np.random.default_rng(seed)
    types = ["float32", "bfloat16"] * len(shapes) if dtype == "mixed" else [dtype] * len(shapes)
    types = ["float32" if len(shape) == 1 else kind for shape, kind in zip(shapes, types, strict=False)]
    arrays = [context.array(scale * rng.standard_normal(s), kind) for s, kind in zip(shapes, types, strict=True)]
    return arrays, [exact(a) for a in arrays]


def exact(a):
    return None if a is None else cuda.host(a).astype(np.float64)


def close(actual, expected, given, terms, parts=None):
    """A gradient has shape and type of what it is of. parts: what it is a sum of, if that is much larger."""
    assert (actual.shape, actual.dtype) == (given.shape, given.dtype)
    size = np.linalg.norm(expected if parts is None else parts)
    assert np.linalg.norm(exact(actual) - expected) <= bound(given.dtype, 16 * terms) * size


def check(context, name, given, options=(), of=None, terms=1):
    """y of one number a sample, its bits again, and every gradient for an array and for a number. of: the inputs that have
    gradients."""
    operation, operation_backward = getattr(cuda, name), getattr(cuda, f"{name}_backward")
    n = given[0].shape[0]
    y, saved = operation(*given, *options)
    expected, expected_saved = getattr(reference, name)(*map(exact, given), *options)
    assert (y.shape, y.dtype) == ((n,), "float32")
    assert np.linalg.norm(exact(y) - expected) <= bound("float32", terms) * max(np.linalg.norm(expected), terms)
    assert cuda.host(operation(*given, *options)[0]).tobytes() == cuda.host(y).tobytes()
    each = np.random.default_rng(1).standard_normal(n).astype(np.float32)
    for dy, theirs in ((context.array(each), each.astype(np.float64)), (0.3, 0.3)):
        actual, wanted = operation_backward(dy, saved), getattr(reference, f"{name}_backward")(theirs, expected_saved)
        actual, wanted = (g if isinstance(g, tuple) else (g,) for g in (actual, wanted))
        assert len(actual) == len(wanted)
        for a, w, x in zip(actual, wanted, of or given, strict=True):
            assert (a is None) == (w is None)
            if a is not None:
                close(a, w, x, terms)
        again = operation_backward(dy, saved)
        for a, b in zip(actual, again if isinstance(again, tuple) else (again,), strict=True):
            assert a is None or cuda.host(a).tobytes() == cuda.host(b).tobytes()
    return y


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("shared", [False, True])
def test_gaussian_log_likelihood(context, shape, kind, shared):
    given, _ = drawn(context, [shape, shape, shape[:1] if shared else shape], kind)
    check(context, "gaussian_log_likelihood", given, terms=int(np.prod(shape[1:])))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("second", ["none", "whole", "one a sample"])
def test_gaussian_kl(context, shape, kind, second):
    shapes = {"none": [shape] * 2, "whole": [shape] * 4, "one a sample": [shape, shape[:1], shape, shape[:1]]}[second]
    given, _ = drawn(context, shapes, kind)
    check(context, "gaussian_kl", given, of=(*given, None, None)[:4], terms=int(np.prod(shape[1:])))


def test_a_divergence_of_equals_is_nothing_and_of_neighbours_has_its_digits(context):
    """expm1(d) - d is d^2 / 2: as a difference in float32 all of it would be lost."""
    mean, log = context.array(np.ones((2, 3))), context.array(np.full((2, 3), -1.25))
    kl, saved = cuda.gaussian_kl(mean, log, mean, log)
    assert not cuda.host(kl).any()
    assert not any(cuda.host(g).any() for g in cuda.gaussian_kl_backward(1.0, saved))
    near = context.array(np.full((2, 3), -1.25 + 2.0**-12))
    expected, _ = reference.gaussian_kl(*map(exact, (mean, near, mean, log)))
    assert relative_error(exact(cuda.gaussian_kl(mean, near, mean, log)[0]), expected) <= bound("float32")
    assert expected[0] == pytest.approx(0.75 * 2.0**-24, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("shared", [False, True])
def test_reparameterise(context, shape, kind, shared):
    (mean, log, eps), numbers = drawn(context, [shape, shape[:1] if shared else shape, shape], kind)
    z, saved = cuda.reparameterise(mean, log, eps)
    expected, expected_saved = reference.reparameterise(*numbers)
    assert (z.shape, z.dtype) == (shape, mean.dtype)
    assert relative_error(exact(z), expected) <= bound(z.dtype)
    for dtype in ("float32", "bfloat16"):
        dz = context.array(np.random.default_rng(1).standard_normal(shape), dtype)
        (dmean, dlog), wanted = (cuda.reparameterise_backward(dz, saved),
                                 reference.reparameterise_backward(exact(dz), expected_saved))  # fmt: skip
        close(dmean, wanted[0], mean, 1)
        parts = np.linalg.norm(exact(dz) * (expected - numbers[0])) if shared else None
        close(dlog, wanted[1], log, int(np.prod(shape[1:])), parts)
        assert cuda.host(cuda.reparameterise_backward(dz, saved)[1]).tobytes() == cuda.host(dlog).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("bits", [False, True])
def test_bernoulli_log_likelihood(context, shape, kind, bits):
    (_, logits), _ = drawn(context, [shape, shape], kind, scale=3)
    x = np.random.default_rng(2).random(shape)
    x = context.array(x > 0.5 if bits else x, "bfloat16" if kind == "bfloat16" and len(shape) > 1 else "float32")
    check(context, "bernoulli_log_likelihood", (x, logits), of=(logits,), terms=int(np.prod(shape[1:])))


def test_a_bit_that_was_certain_costs_little_but_not_nothing(context):
    """x l - softplus(l) would be 0 in float32; a bit that was certain not to be costs |l|."""
    x, logits = np.array([[1.0], [0], [1], [0], [1]]), np.array([[30.0], [-30], [-90], [90], [1e4]])
    y, saved = cuda.bernoulli_log_likelihood(context.array(x), context.array(logits))
    np.testing.assert_allclose(cuda.host(y), [-np.exp(-30), -np.exp(-30), -90, -90, 0], rtol=1e-6)
    d = cuda.host(cuda.bernoulli_log_likelihood_backward(1.0, saved))[:, 0]
    np.testing.assert_allclose(d, [np.exp(-30), -np.exp(-30), 1, -1, 0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (9, 5), (17, 33), (3, 500)])
def test_log_mean_exp(context, dtype, shape):
    (x,), numbers = drawn(context, [shape], dtype, scale=5)
    y = check(context, "log_mean_exp", (x,), terms=shape[1])
    assert np.all(exact(y) <= numbers[0].max(axis=1) + 1e-5)


def test_nothing_overflows(context):
    x = context.array([[1e4, 0, -1e4], [-1e30, -1e30, -1e30]])
    y, saved = cuda.log_mean_exp(x)
    np.testing.assert_allclose(cuda.host(y), [1e4 - np.log(3), -1e30], rtol=1e-6)
    np.testing.assert_allclose(cuda.host(cuda.log_mean_exp_backward(1.0, saved)), [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_the_halves_of_what_a_network_says_are_taken_as_they_are(context, dtype):
    """Mean and log variance are the parts of a split, which are not dense; so is what is joined again."""
    (both, eps, x), _ = drawn(context, [(3, 4, 6), (3, 4, 3), (3, 4, 3)], dtype)
    mean, log = cuda.split(both, 2)[0]
    assert not mean.dense
    whole = [context.array(cuda.host(a), dtype) for a in (mean, log)]
    for name, more in (("gaussian_kl", ()), ("gaussian_log_likelihood", (x,)), ("reparameterise", (eps,))):
        forward = (lambda m, n=name, more=more: getattr(cuda, n)(*more, *m)) if name == "gaussian_log_likelihood" else (
            lambda m, n=name, more=more: getattr(cuda, n)(*m, *more))  # fmt: skip
        (a, saved), (b, _) = forward((mean, log)), forward(whole)
        assert np.array_equal(cuda.host(a), cuda.host(b)), name
    assert cuda.reparameterise_backward(a, saved)[1].dense


def test_a_large_sample_is_shared_by_several_blocks(context):
    given, _ = drawn(context, [(2, 9001)] * 2, "float32")
    cuda.gaussian_kl(*given)
    assert [kernel.name for kernel in context.device.launches] == ["gaussian_kl", "sample_means"]
    context.device.launches.clear()
    cuda.gaussian_kl(*drawn(context, [(2, 64)] * 2, "float32")[0])
    assert [kernel.name for kernel in context.device.launches] == ["gaussian_kl"]


def test_a_captured_bound_follows_what_it_is_given(context, dtype):
    """A variational autoencoder's, but for its networks."""
    arena, shape = Context(context.device, Arena(context.device, 1 << 18)), (3, 5)

    def bound_of(mean, log, eps, x):
        z, of_z = cuda.reparameterise(mean, log, eps)
        said, of_said = cuda.bernoulli_log_likelihood(x, z)
        kl, of_kl = cuda.gaussian_kl(mean, log)
        of_mean, of_log = cuda.reparameterise_backward(cuda.bernoulli_log_likelihood_backward(-1.0, of_said), of_z)
        dmean, dlog, _, _ = cuda.gaussian_kl_backward(1.0, of_kl)
        return [said, kl, cuda.accumulate(of_mean, dmean), cuda.accumulate(of_log, dlog)]

    given, kept = drawn(arena, [shape] * 4, dtype)[0], []

    def run():
        kept[:] = bound_of(*given)

    run()
    graph = arena.capture(run)
    for seed in (1, 2):
        new, _ = drawn(context, [shape] * 4, dtype, seed)
        for array, values in zip(given, new, strict=True):
            copied = np.empty(values.nbytes, np.uint8)
            context.device.read(values.pointer, copied)
            context.device.write(array.pointer, copied)
        graph.replay()
        for a, b in zip(kept, bound_of(*new), strict=True):
            assert np.array_equal(cuda.host(a), cuda.host(b))


def test_what_does_not_fit_is_refused(context):
    x, log = context.array(np.zeros((2, 3))), context.array(np.zeros(3))
    with pytest.raises(AssertionError, match=r"expected \(2, 3\) or \(2,\)"):
        cuda.gaussian_log_likelihood(x, x, log)
    with pytest.raises(AssertionError, match="both of the second distribution, or neither"):
        cuda.gaussian_kl(x, x, x)
    with pytest.raises(AssertionError, match=r"expected \(N, K\)"):
        cuda.log_mean_exp(log)
    with pytest.raises(AssertionError, match="expected a dense array of float32 or bfloat16"):
        cuda.bernoulli_log_likelihood(context.array(np.zeros((2, 3)), "int32"), x)
    _, saved = cuda.gaussian_kl(x, x)
    with pytest.raises(AssertionError, match=r"gaussian_kl: expected float32 \(2,\)"):
        cuda.gaussian_kl_backward(log, saved)
