"""Predictions of shards: those of the network, in any number of processes."""

from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import pytest

from refdiff import models
from refdiff.engines import cpu
from refdiff.engines.cpu.runtime.context import using
from refdiff.sampling.cpu import ParallelNetwork

MODEL = models.UNetConfig(size=8, channels=1, width=8)


@pytest.fixture(scope="module")
def p():
    """Weights of which none is zero."""
    p = models.initialise(models.layout(MODEL), 0)
    return models.tree_map(lambda a: a + 0.05 * np.random.default_rng(a.size).standard_normal(a.shape).astype("f"), p)


X = np.random.default_rng(0).standard_normal((8, 8, 8, 1), dtype=np.float32)
T = np.arange(1, 9) * 100


def batch(n):
    return {"x": X[:n], "t": T[:n]}


def parallel(p, **options):
    return ParallelNetwork(models.Network(MODEL, p), **options)


def test_a_prediction_is_that_of_the_network_for_each_shard(two_processes, p):
    with using(shards=1):
        parts = [networks.forward(cpu, MODEL, p, X[own], T[own])[0] for own in (slice(0, 4), slice(4, 7))]
    np.testing.assert_array_equal(parallel(p)(batch(7)), np.concatenate(parts))


@pytest.mark.parametrize("n", [7, 2, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_a_prediction_is_that_of_the_network_for_all(some_processes, p, n, count):
    some_processes(count)
    predict, (expected, _) = parallel(p), networks.forward(cpu, MODEL, p, X[:n], T[:n])
    for _ in range(3):  # transformed weights are kept from the second time on
        np.testing.assert_array_equal(predict(batch(n)), expected)


def test_four_shards_have_the_same_bits_in_any_number_of_processes(some_processes, p):
    results = []
    for count in (1, 2, 4):
        some_processes(count)
        predict = parallel(p, shards=4)
        results.append([predict(batch(n)).tobytes() for n in (8, 6, 3, 1)])
    assert results[1:] == results[:1] * 2


def test_two_threads_may_ask_for_predictions_at_once(two_processes, p):
    predict = parallel(p)
    expected = predict(batch(8))
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda i: predict(batch(8)), range(40)))
    assert all(np.array_equal(y, expected) for y in results)
