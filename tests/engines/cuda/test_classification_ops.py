"""The cross entropy on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.testing.measures import relative_error

# One sample, more than a block's, one class more than packs hold, more classes than a warp's lanes hold.
SHAPES = [(3, 2), (1, 10), (9, 16), (17, 33), (5, 1000)]


def drawn(context, dtype, n, k, seed=0):
    """Logits on the device and the very same numbers as NumPy's in float64; labels."""
    rng = np.random.default_rng([seed, n, k])
    logits = context.array(3 * rng.standard_normal((n, k)), dtype)
    return logits, cuda.host(logits).astype(np.float64), rng.integers(0, k, n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_cross_entropy(context, dtype, shape, on_device):
    logits, logits64, label = drawn(context, dtype, *shape)
    loss, saved = cuda.cross_entropy(logits, context.array(label, "int32") if on_device else label)
    expected, expected_saved = reference.cross_entropy(logits64, label)
    assert (loss.shape, loss.dtype) == (shape[:1], "float32")
    assert relative_error(cuda.host(loss), expected) <= bound("float32", shape[1])
    each = np.random.default_rng(1).standard_normal(shape[0]).astype(np.float32)
    for dloss, given in ((0.3, 0.3), (each.astype(np.float64), context.array(each))):
        dlogits = cuda.cross_entropy_backward(given, saved)
        assert (dlogits.dtype, dlogits.shape) == (dtype, shape)
        expected = reference.cross_entropy_backward(dloss, expected_saved)
        assert relative_error(cuda.host(dlogits).astype(np.float64), expected) <= bound(dtype, 16 * shape[1])
        again = cuda.cross_entropy_backward(given, saved)
        assert cuda.host(again).tobytes() == cuda.host(dlogits).tobytes()


def test_nothing_overflows(context, dtype):
    logits = context.array([[1e4, 0, -1e4], [-1e30, 1e30, 0]], dtype)
    loss, saved = cuda.cross_entropy(logits, np.array([1, 1]))
    np.testing.assert_allclose(cuda.host(loss), [cuda.host(logits)[0, 0], 0], rtol=1e-6)
    assert cuda.host(cuda.cross_entropy_backward(1.0, saved)).tolist() == [[1, -1, 0], [0, 0, 0]]


def test_the_logits_may_be_part_of_a_split(context, dtype):
    logits, logits64, label = drawn(context, dtype, 4, 16)
    (_, right), _ = cuda.split(logits, 2)
    loss, _ = cuda.cross_entropy(right, label // 2)
    assert relative_error(cuda.host(loss), reference.cross_entropy(logits64[:, 8:], label // 2)[0]) <= bound("float32")


def test_a_captured_loss_follows_its_labels(context, dtype):
    arena, kept = Context(context.device, Arena(context.device, 1 << 16)), []
    logits, logits64, _ = drawn(arena, dtype, 5, 10)
    label, weight = arena.array(np.zeros(5), "int32"), arena.array(np.arange(10.0))

    def run():
        loss, saved = cuda.cross_entropy(logits, label)
        kept[:] = loss, cuda.cross_entropy_backward(loss, saved), cuda.gather(weight, label)

    run()
    graph = arena.capture(run)
    for seed in (1, 2):
        labels = np.random.default_rng(seed).integers(0, 10, 5)
        context.device.write(label.pointer, labels.astype(np.int32))
        graph.replay()
        loss, dlogits, found = map(cuda.host, kept)
        expected, saved = reference.cross_entropy(logits64, labels)
        assert relative_error(loss, expected) <= bound("float32")
        assert relative_error(dlogits, reference.cross_entropy_backward(expected, saved)) <= bound(dtype, 160)
        assert np.array_equal(found, labels)


def test_what_does_not_fit_is_refused(context):
    logits = context.array(np.zeros((3, 4)))
    with pytest.raises(AssertionError, match="cross_entropy"):
        cuda.cross_entropy(logits, np.array([0]))
    with pytest.raises(AssertionError, match="expected integers from 0 to 3"):
        cuda.cross_entropy(logits, np.array([0, 1, 4]))
    _, saved = cuda.cross_entropy(logits, np.array([0, 1, 3]))
    with pytest.raises(AssertionError, match=r"cross_entropy: expected float32 \(3,\)"):
        cuda.cross_entropy_backward(context.array(np.ones(4)), saved)
