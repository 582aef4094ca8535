"""Shards over processes: the bits follow from the number of shards alone, and a call that failed spoils no later one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engines.cpu.example_workers import SIZE, Regression

from refdiff.engines.cpu.runtime import data_parallel
from refdiff.engines.cpu.runtime.data_parallel import DataParallel, gradient_buffers
from refdiff.engines.cpu.runtime.shared_memory import SharedMemory

TREES = "p", "ema", "m", "v"
X = np.random.default_rng(0).standard_normal((16, 4), dtype=np.float32)


def regression(shards):
    """A DataParallel of the regression, and its buffers."""
    buffers = SharedMemory((*TREES, *gradient_buffers(shards)), SIZE)
    rng = np.random.default_rng(1)
    buffers["p"][:12], buffers["p"][64:67] = rng.standard_normal(12), rng.standard_normal(3)
    return DataParallel(Regression, (buffers,), SIZE, shards), buffers


def gradient(parallel, step, x):
    """Loss and norm; the gradient is then in g0."""
    parts = parallel.parts(len(x))
    shards = parallel.shards // len(parts)
    calls = [("gradient", i, shards, step, part.start, len(x), x[part]) for i, part in enumerate(parts)]
    loss = float(np.mean(np.concatenate(parallel.run(calls))))
    return loss, parallel.norms(len(parts), [slice(SIZE)], len(parts))[0]


def update(parallel, step, norm):
    """One step of Adam, clipped at 0.5."""
    count = parallel.processes(len(X))
    parallel.run([("update", i, count, step + 1, min(1.0, 0.5 / norm)) for i in range(count)])


def steps(parallel, buffers, first=0, last=5):
    """What some steps measure, and the bits of the buffers after them."""
    measured = []
    for step in range(first, last):
        measured.append(gradient(parallel, step, X))
        update(parallel, step, measured[-1][1])
    return measured, [buffers[name].tobytes() for name in TREES]


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_any_number_of_processes_gives_the_same_bits(some_processes, shards):
    results = []
    for count in (1, 2, 4, 8):
        some_processes(count)
        parallel, buffers = regression(shards)
        results.append(steps(parallel, buffers))
        assert len(parallel.others) == min(count, shards) - 1
    assert all(result == results[0] for result in results[1:])


def test_the_number_of_processes_may_change_between_steps(some_processes):
    some_processes(1)
    expected = steps(*regression(4))
    (parallel, buffers), measured = regression(4), []
    for step, count in enumerate((2, 4, 1, 4, 2)):
        some_processes(count)
        part, bits = steps(parallel, buffers, step, step + 1)
        measured += part
    assert (measured, bits) == expected


def test_the_gradient_is_that_of_the_mean_squared_error(some_processes):
    for shards, count in ((1, 1), (2, 2), (4, 2), (8, 1)):
        some_processes(count)
        parallel, buffers = regression(shards)
        loss, norm = gradient(parallel, 1, X)
        weight, bias = buffers["p"][:12].reshape(4, 3).astype(float), buffers["p"][64:67].astype(float)
        difference = X @ weight + bias - Regression.target
        dweight, dbias = 2 / difference.size * X.T @ difference, 2 / difference.size * difference.sum(0)
        assert loss == pytest.approx(np.mean(difference**2), rel=1e-6)
        assert norm == pytest.approx(np.sqrt(np.sum(dweight**2) + np.sum(dbias**2)), rel=1e-6)
        np.testing.assert_allclose(buffers["g0"][:12].reshape(4, 3), dweight, rtol=1e-5)
        np.testing.assert_allclose(buffers["g0"][64:67], dbias, rtol=1e-5)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_a_prediction_of_any_number_of_samples_has_the_same_bits(some_processes, shards):
    results = []
    for count in (1, 2, 4):
        some_processes(count)
        parallel, buffers = regression(shards)
        results.append([parallel.predict(X[:n]).tobytes() for n in range(1, 10)])
    assert all(result == results[0] for result in results[1:])
    np.testing.assert_allclose(
        parallel.predict(X), X @ buffers["p"][:12].reshape(4, 3) + buffers["p"][64:67], rtol=1e-4
    )


def test_as_many_processes_as_pay(use_threads, monkeypatch):
    parallel, _ = regression(4)
    monkeypatch.setattr(data_parallel, "WORTH", 8 * SIZE)
    use_threads(8)
    assert [parallel.processes(n) for n in (1, 7, 8, 15, 16, 64)] == [1, 1, 2, 2, 4, 4]
    monkeypatch.setattr(data_parallel, "WORTH", 0)
    assert [parallel.processes(n) for n in (1, 2, 3, 4)] == [1, 2, 2, 4]
    for threads, count in ((1, 1), (2, 2), (3, 2), (4, 4), (7, 4)):
        use_threads(threads)
        assert parallel.processes(64) == count
    assert regression(1)[0].processes(64) == 1
    monkeypatch.setattr(data_parallel, "available", False)
    assert parallel.processes(64) == 1


def test_each_process_has_its_part_of_the_threads(some_processes, monkeypatch):
    counts = []
    monkeypatch.setattr(Regression, "call", lambda self, count, *call: counts.append(count) or [0.0])
    for threads in (1, 2, 3, 4, 7):
        some_processes(threads)
        regression(2)[0].run([("squares", 0, 1, [slice(SIZE)], 1)])
    assert counts == [1, 2, 3, 4, 7]
    counts.clear()
    for threads in (2, 3, 4, 7):
        some_processes(threads)
        regression(2)[0].run([("squares", i, 2, [slice(SIZE)], 2) for i in range(2)])
    assert counts == [1, 1, 2, 3]


@pytest.mark.parametrize("shards", [0, 3, 6, -2])
def test_shards_are_a_power_of_two(shards):
    with pytest.raises(ValueError, match=f"^shards: expected a power of two, got {shards}; set 1, 2, 4 or 8$"):
        DataParallel(Regression, (SharedMemory(("p",), SIZE),), SIZE, shards)


def test_more_than_two_shards_divide_the_batch():
    parallel, _ = regression(4)
    with pytest.raises(ValueError, match=r"^batch: expected a multiple of the 4 shards, got 7 samples; "):
        gradient(parallel, 1, X[:7])


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_call_that_failed_spoils_no_later_one(some_processes, monkeypatch, place):
    some_processes(4)
    expected = steps(*regression(4))
    parallel, buffers = regression(4)
    measured, _ = steps(parallel, buffers, 0, 2)
    before = list(parallel.others)
    with monkeypatch.context() as patch:
        if place == "here":
            patch.setattr(parallel.local, "gradient", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                gradient(parallel, 2, X)
        else:
            calls = [("squares", i, 2, [slice(SIZE)], 2) for i in range(2)]
            with pytest.raises(AttributeError, match="guess"):
                parallel.run([calls[0], calls[1], ("guess",), calls[1]])
    assert not parallel.others
    assert not any(process.is_alive() for process in before)
    rest, bits = steps(parallel, buffers, 2, 5)
    assert (measured + rest, bits) == expected


def test_two_threads_may_predict_at_once(some_processes):
    some_processes(2)
    parallel, _ = regression(2)
    expected = parallel.predict(X)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda i: parallel.predict(X), range(40)))
    assert all(np.array_equal(y, expected) for y in results)
