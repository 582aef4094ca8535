"""How the CPU engine runs: threads, memory, kept weights, the matrix library's setting, the profile."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import pytest

from refdiff.engines import cpu, reference
from refdiff.engines.cpu import winograd
from refdiff.engines.cpu.runtime import blocks, thread_pool
from refdiff.engines.cpu.runtime.blas import single_threaded_blas
from refdiff.engines.cpu.runtime.blocks import pool
from refdiff.engines.cpu.runtime.context import current
from refdiff.engines.cpu.runtime.memory import scratch
from refdiff.models import MODELS, UNetConfig, flatten, layout, tree_map
from refdiff.random import Key
from refdiff.testing.measures import relative_error

CONFIG = MODELS["digits"]
# 16x16 and 8x8 images, enough channels for every algorithm of a convolution and for work divided among threads.
WIDE = UNetConfig(size=16, channels=3, width=64, multipliers=(1, 2), blocks=1, attention=(8,), dropout=0.1)


def drawn(config, seed):
    rng = np.random.default_rng(seed)

    def values(spec):
        noise = rng.standard_normal(spec.shape)
        value = noise / np.prod(spec.shape[:-1]) ** 0.5 if len(spec.shape) > 1 else spec.first + 0.3 * noise
        return value.astype(np.float32)

    return tree_map(values, layout(config))


def step(engine, config, p, seed, n, dtype=np.float32):
    """Prediction, dx and the gradients of a squared error, flat."""
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((2, n, *config.shape)).astype(np.float32).astype(dtype)
    y, saved = networks.forward(engine, config, p, x, np.arange(1, n + 1) * 37, Key(seed, 3))
    _, of_loss = engine.squared_error(y, target)
    dx, g = networks.backward(engine, config, engine.squared_error_backward(1 / n, of_loss), saved)
    return {"y": y, "dx": dx, **flatten(g)}


def bits(tree):
    return {name: leaf.tobytes() for name, leaf in tree.items()}


@pytest.mark.parametrize(("config", "n"), [(CONFIG, 6), (WIDE, 5)], ids=["digits", "wide"])
def test_a_network_agrees_with_the_reference(config, n):
    p = drawn(config, 0)
    actual = step(cpu, config, p, 1, n)
    wanted = step(reference, config, tree_map(lambda a: a.astype(np.float64), p), 1, n, np.float64)
    assert actual.keys() == wanted.keys()
    for name, leaf in actual.items():
        assert leaf.dtype == np.float32
        error = relative_error(leaf.astype(np.float64), wanted[name])
        assert error <= 1e-5, f"{name}: {error}"


@pytest.mark.parametrize(("config", "n"), [(CONFIG, 64), (WIDE, 16)], ids=["digits", "wide"])
def test_the_bits_do_not_depend_on_the_number_of_threads(use_threads, config, n):
    p, results = drawn(config, 0), []
    for count in (1, 2, 8):
        use_threads(count)
        results.append(bits(step(cpu, config, p, 2, n)))
    assert results[0] == results[1] == results[2]


def test_two_models_in_two_threads_do_not_disturb_each_other(use_threads):
    use_threads(2)
    p = [drawn(CONFIG, seed) for seed in (0, 1)]
    alone = [[bits(step(cpu, CONFIG, p[i], seed, 16)) for seed in range(4)] for i in (0, 1)]
    with ThreadPoolExecutor(2) as threads:
        together = threads.map(lambda i: [bits(step(cpu, CONFIG, p[i], seed, 16)) for seed in range(4)], (0, 1))
    assert list(together) == alone


@pytest.mark.parametrize("count", [1, 2])
def test_a_steady_step_asks_for_no_memory(use_threads, count):
    """Nothing above 32 kB comes fresh from the system, and Python's own share is small."""
    use_threads(count)
    p = drawn(WIDE, 0)
    for _ in range(3):
        step(cpu, WIDE, p, 0, 8)
    fresh = pool.fresh
    step(cpu, WIDE, p, 0, 8)
    if count == 1:
        assert pool.fresh == fresh
    tracemalloc.start()
    step(cpu, WIDE, p, 0, 8)
    gradients = sum(leaf.nbytes for leaf in flatten(p).values())
    assert tracemalloc.get_traced_memory()[1] <= gradients + 4e6
    tracemalloc.stop()


def test_working_space_is_the_same_until_more_is_asked_for(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_ARRAYS", 5)
    a = scratch("of a test", 3, 4)
    assert scratch("of a test", 3, 4) is a
    assert np.shares_memory(scratch("of a test", 2, 3), a)
    assert not np.shares_memory(scratch("of another", 3, 4), a)
    assert scratch("of a test", 100, 1000).shape == (100, 1000)
    assert not np.shares_memory(scratch("of a test", 3, 4), a)
    for n in range(1, 20):
        scratch("of a test", n)
        assert len(current().workspace.arrays) <= 7


def test_memory_is_not_used_again_while_a_view_of_it_lives():
    x = np.full((64, 64, 64), 3, np.float32)
    view = cpu.add(x, x)[0][1::2, :, ::3].T[2:]
    others = [cpu.add(x, -x)[0] for _ in range(5)]
    assert (view == 6).all()
    del view, others
    gc.collect()
    fresh = pool.fresh
    cpu.add(x, x)
    assert pool.fresh == fresh


def test_other_shapes_let_the_old_memory_go():
    big = [cpu.add(x, x)[0] for x in [np.ones(6_000_000, np.float32)] for _ in range(5)]
    del big
    held = pool.bytes
    kept = []
    for i in range(60):
        x = np.ones(1_000_000 + 200_000 * (i % 7), np.float32)
        kept.append(cpu.add(x, x)[0])
    assert pool.bytes <= 2.5 * max(held, sum(a.nbytes for a in kept)) + (64 << 20)


def test_weights_that_change_are_transformed_again():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 8, 8, 32)).astype(np.float32), np.empty((3, 3, 32, 32), np.float32)
    bias = np.zeros(32, np.float32)
    for change in range(4):
        if change < 3:
            weight[...] = rng.standard_normal(weight.shape)  # every number, as an optimiser does
        else:
            weight[0, 0, 3, 5] += 100  # one number: only the hook tells
            cpu.forget_weights()
        wanted, saved64 = reference.conv2d(*(a.astype(np.float64) for a in (x, weight, bias)))
        for _ in range(3):  # kept from the second time on
            y, saved = cpu.conv2d(x, weight, bias)
            assert relative_error(y.astype(np.float64), wanted) <= 1e-5
            dx, _ = cpu.conv2d_backward(y, saved)
            assert relative_error(dx.astype(np.float64), reference.conv2d_backward(wanted, saved64)[0]) <= 1e-5
    kept = winograd.transformed_weights
    assert any(name == id(weight) for name, _ in kept)
    name = id(weight)
    del weight, saved
    gc.collect()
    assert not any(other == name for other, _ in kept)


@pytest.mark.parametrize("n", [0, -1, 10**6, 1.5, "2"])
def test_a_wrong_number_of_threads_is_refused(n):
    before = cpu.threads()
    with pytest.raises(ValueError, match=r"threads: expected a number of threads from 1 to \d+.*got .*leave it out"):
        cpu.threads(n)
    assert cpu.threads() == before
    assert cpu.threads(1) == cpu.threads() == 1
    cpu.threads(before)


@pytest.mark.parametrize("text", ["0", "many", "1000000", ""])
def test_a_wrong_environment_is_refused(monkeypatch, text):
    monkeypatch.setenv("REFDIFF_THREADS", text)
    monkeypatch.setattr(thread_pool.settings, "threads", None)
    with pytest.raises(ValueError, match="REFDIFF_THREADS: expected"):
        cpu.threads()
    monkeypatch.setenv("REFDIFF_THREADS", "1")
    assert cpu.threads() == 1


@pytest.mark.skipif(single_threaded_blas.threads is None, reason="NumPy uses another matrix library")
def test_the_matrix_library_is_left_as_it_was():
    original, seen = single_threaded_blas.threads, []
    product = np.matmul
    try:
        for n in (1, 3):
            single_threaded_blas.threads = n
            np.matmul = lambda *args, **options: (seen.append(single_threaded_blas.threads), product(*args, **options))[
                1
            ]
            try:
                cpu.linear(np.ones((2, 3), np.float32), np.ones((3, 4), np.float32), np.ones(4, np.float32))
                with pytest.raises(ValueError, match=r"matmul|size|shape"):
                    cpu.linear(np.ones((2, 3), np.float32), np.ones((5, 4), np.float32), np.ones(4, np.float32))
            finally:
                np.matmul = product
            assert single_threaded_blas.threads == n
        assert seen
        assert set(seen) == {1}
    finally:
        single_threaded_blas.threads = original


def test_large_tasks_divide_the_threads_among_themselves(use_threads):
    seen = {}

    def task(i):
        seen[i] = thread_pool.available()

    for count, shares in ((1, 1), (2, 1), (5, 2), (8, 4)):
        use_threads(count)
        thread_pool.parallel_sections(2, task)
        assert seen == {0: shares, 1: shares}
        assert thread_pool.available() == count
    thread_pool.parallel_sections(1, task)
    thread_pool.parallel_sections(2, lambda i: task(i + 5), serial=True)
    assert seen == {0: 8, 1: 4, 5: 8, 6: 8}


def test_an_error_in_a_task_is_raised_and_the_threads_go_on(use_threads):
    use_threads(8)

    def task(i):
        if i == 5:
            raise KeyError(i)

    for _ in range(3):
        with pytest.raises(KeyError):
            thread_pool.parallel_for(20, task)
    done = []
    thread_pool.parallel_for(50, done.append)
    assert sorted(done) == list(range(50))


def test_the_profile_names_operation_shape_algorithm_and_time():
    x, weight, bias = np.ones((4, 8, 8, 16), np.float32), np.ones((3, 3, 16, 16), np.float32), np.ones(16, np.float32)
    cpu.conv2d(x, weight, bias)  # outside: not recorded
    with cpu.profile() as record:
        for _ in range(2):
            y, saved = cpu.conv2d(x, weight, bias)
            cpu.conv2d_backward(y, saved)
        cpu.conv2d(x, weight, bias, stride=2, padding=(0, 1))
    lines = {(line.operation, line.algorithm): line for line in record.lines()}
    assert {name: line.calls for name, line in lines.items()} == {
        ("conv2d", "winograd 2x2"): 2, ("conv2d_backward", "winograd 2x2"): 2, ("conv2d", "taps"): 1
    }  # fmt: skip
    assert lines["conv2d", "taps"].shapes == "4x8x8x16 3x3x16x16 16"
    assert all(line.seconds > 0 for line in lines.values())
    table = record.table()
    assert "winograd 2x2" in table
    assert "4x8x8x16" in table
