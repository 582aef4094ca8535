"""A batch in two halves: one process and two compute the same bits, and a step that failed spoils no later one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refdiff import DeviceError, models
from refdiff.data import load
from refdiff.engines import cpu
from refdiff.engines.cpu.division import undivided
from refdiff.models import flatten
from refdiff.training import State, halves, train_step
from refdiff.training.flat import Flat
from refdiff.training.halves import Halves

DIGITS = load("digits").x


@pytest.fixture
def config(small):
    """Every source of difference at once: dropout, clipping, weight decay, an average."""
    return small.changed(["engine=cpu", "model.dropout=0.3", "train.clip=0.05", "train.weight_decay=0.1"])


def batches(sizes):
    ends = np.cumsum(sizes)
    return [DIGITS[end - n : end] for n, end in zip(sizes, ends, strict=True)]


def first(config):
    return Flat(config, config.schedule.build(), State.first(config))


def bits(worker):
    state = worker.state()
    return {f"{tree} {name}": leaf.tobytes() for tree in ("p", "average", "m", "v")
            for name, leaf in flatten(getattr(state, tree)).items()}  # fmt: skip


def run(config, sizes):
    """What each step measured, and the bits of the state after them."""
    worker = first(config)
    return [worker.step(x) for x in batches(sizes)], bits(worker)


@pytest.mark.parametrize("sizes", [[8] * 4, [7] * 4, [2] * 4, [1] * 4, [8, 1, 7, 1, 3, 8]], ids=str)
def test_one_process_and_two_give_the_same_bits(two_processes, use_threads, config, sizes):
    two = run(config, sizes)
    use_threads(1)
    assert run(config, sizes) == two


def test_the_number_of_threads_may_change_between_steps(two_processes, use_threads, config):
    wanted = run(config, [8, 7, 8, 7, 8])
    worker, measured = first(config), []
    for count, x in zip((1, 2, 2, 1, 2), batches([8, 7, 8, 7, 8]), strict=True):
        use_threads(count)
        measured.append(worker.step(x))
    assert (measured, bits(worker)) == wanted


@pytest.mark.parametrize("n", [8, 7, 2, 1])
def test_the_steps_are_those_of_the_pure_step(two_processes, config, n):
    schedule, state, worker = config.schedule.build(), State.first(config), first(config)
    for x in batches([n] * 5):
        came = worker.step(x)
        state, wanted = train_step(config, schedule, state, x)
        assert came.loss == pytest.approx(wanted.loss, rel=1e-5)
        assert came.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-4)
    for tree in ("p", "average", "m", "v"):
        a, b = flatten(getattr(worker.state(), tree)), flatten(getattr(state, tree))
        assert max(np.linalg.norm(a[k] - b[k]) / np.linalg.norm(b[k]) for k in a if np.abs(b[k]).max() > 1e-9) <= 1e-3


def test_the_second_process_works_where_there_is_work_for_two(two_processes, use_threads, monkeypatch, config):
    def helps(threads, n):
        use_threads(threads)
        worker = first(config)
        worker.step(DIGITS[:n])
        return worker.halves._partner is not None

    assert helps(2, 8)
    assert not helps(1, 8)
    assert not helps(2, 1)
    monkeypatch.setattr(halves, "_WORTH", 8 * first(config).halves.packing.size)
    assert helps(2, 8)
    assert not helps(2, 7)


@pytest.fixture
def predicting(config):
    """Halves that predict, their weights, and x_t and t of 7 samples."""
    p = State.first(config).p
    p = models.tree_map(lambda a: a + 0.05 * np.random.default_rng(a.size).standard_normal(a.shape).astype("f"), p)
    worker = Halves(config, config.schedule.build(), ("p",))
    worker.packing.pack(p, worker.buffers["p"])
    return worker, p, DIGITS[:7] + np.float32(0.1), np.arange(1, 8) * 100


def test_a_prediction_is_that_of_the_network_for_each_half(two_processes, config, predicting):
    worker, p, x_t, t = predicting
    with undivided():
        parts = [models.forward(cpu, config.model, p, x_t[own], t[own])[0] for own in (slice(0, 4), slice(4, 7))]
    np.testing.assert_array_equal(worker.predict(x_t, t), np.concatenate(parts))


@pytest.mark.parametrize("n", [7, 2, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_a_prediction_is_that_of_the_network_for_all(two_processes, use_threads, config, predicting, n, count):
    worker, p, x_t, t = predicting
    use_threads(count)
    wanted, _ = models.forward(cpu, config.model, p, x_t[:n], t[:n])
    for _ in range(3):  # transformed weights are kept from the second time on
        np.testing.assert_array_equal(worker.predict(x_t[:n], t[:n]), wanted)


def test_two_threads_may_ask_for_predictions_at_once(two_processes, predicting):
    worker, _, x_t, t = predicting
    wanted = worker.predict(x_t, t)
    with ThreadPoolExecutor(2) as threads:
        came = list(threads.map(lambda i: worker.predict(x_t, t), range(40)))
    assert all(np.array_equal(y, wanted) for y in came)


def test_two_runs_in_two_threads_do_not_disturb_each_other(two_processes, config):
    configs = [config, config.changed(["seed=1"])]
    alone = [run(c, [8] * 6) for c in configs]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda c: run(c, [8] * 6), configs))
    assert together == alone
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", ["gradient", "squares"])
def test_after_an_interrupt_the_step_can_be_made_again(two_processes, monkeypatch, config, name):
    wanted = run(config, [8, 7, 8])
    worker, x = first(config), batches([8, 7, 8])
    measured = [worker.step(x[0])]

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker.halves._half, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.step(x[1])
    measured += [worker.step(x[1]), worker.step(x[2])]
    assert (measured, bits(worker)) == wanted


def test_a_killed_second_process_is_an_error_that_says_so_and_the_step_can_be_made_again(two_processes, config):
    wanted = run(config, [8, 8])
    worker, x = first(config), batches([8, 8])
    worker.step(x[0])
    process = worker.halves._partner._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(DeviceError, match=r"second process of the cpu engine ended, exit status -9"):
        worker.step(x[1])
    assert worker.step(x[1]) == wanted[0][1]
    assert bits(worker) == wanted[1]
