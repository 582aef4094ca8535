"""The cross entropy on the CPU engine: the reference's numbers, the same bits captured, and alone or in a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu

seeds = st.integers(0, 2**32 - 1)


def draw(seed, n, k):
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((n, k), dtype=np.float32), rng.integers(0, k, n)


@given(st.integers(1, 9), st.integers(2, 40), seeds)
def test_cross_entropy(agree, n, k, seed):
    logits, label = draw(seed, n, k)
    agree("cross_entropy", (logits,), seed=seed, terms=16 * k, label=label)
    _, saved = cpu.cross_entropy(logits, label)
    for dloss in (0.3, np.float64(0.3)):
        dlogits = cpu.cross_entropy_backward(dloss, saved)
        each = cpu.cross_entropy_backward(np.full(n, 0.3, np.float32), saved)
        assert (dlogits.dtype, dlogits.tobytes()) == (np.float32, each.tobytes())


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(k):
    logits, label = draw(0, 7, k)
    loss, saved = cpu.cross_entropy(logits, label)
    dlogits = cpu.cross_entropy_backward(0.25, saved)
    for part in (slice(0, 1), slice(3, 5), slice(4, 7)):
        again, saved = cpu.cross_entropy(logits[part], label[part])
        assert again.tobytes() == loss[part].tobytes()
        assert cpu.cross_entropy_backward(0.25, saved).tobytes() == dlogits[part].tobytes()


def test_labels_may_change_from_replay_to_replay(use_threads):
    use_threads(1)

    def f(logits, label, weight):
        loss, saved = cpu.cross_entropy(logits, label)
        dlogits = cpu.cross_entropy_backward(weight, saved)
        half = cpu.cross_entropy_backward(0.5, saved)
        column, _ = cpu.reshape(cpu.add(loss, cpu.gather(weight, label))[0], (-1, 1))
        y, _ = cpu.concat(cpu.add(dlogits, half)[0], column)
        return y

    graph = cpu.Captured(f)
    for call in range(5):
        logits, label = draw(call, 12, 10)
        weight = np.random.default_rng(call).random(12, dtype=np.float32)
        assert graph(logits, label, weight).tobytes() == f(logits, label, weight).tobytes(), call
    assert graph.capture is not None
    with pytest.raises(AssertionError, match="labels from 0 to 9"):
        graph(logits, label + 9, weight)
