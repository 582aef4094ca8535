"""Steps in shards: any number of processes computes the same bits, and a step that failed spoils no later one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from states import DIGITS, batches, bits, difference

from refdiff import DeviceError
from refdiff.engines.cpu.runtime import data_parallel
from refdiff.training import TREES, State, train_step
from refdiff.training.trainers.cpu import CPUTrainer


@pytest.fixture
def config(small):
    """Every source of difference at once: dropout, clipping, weight decay, an average."""
    return small.changed(["engine=cpu", "model.dropout=0.3", "train.max_grad_norm=0.05", "train.weight_decay=0.1"])


def first(config, shards=2):
    return CPUTrainer(config := config.changed([f"train.shards={shards}"]), State.first(config))


def run(config, sizes, shards=2):
    """What each step measured, and the bits of the state after them."""
    worker = first(config, shards)
    return [worker.step(batch) for batch in batches(sizes)], bits(worker.state())


@pytest.mark.parametrize("sizes", [[8] * 4, [2] * 4, [8, 2, 6, 2, 4, 8]], ids=str)
def test_one_process_and_two_give_the_same_bits(two_processes, use_threads, config, sizes):
    two = run(config, sizes)
    use_threads(1)
    assert run(config, sizes) == two


def test_the_number_of_threads_may_change_between_steps(two_processes, use_threads, config):
    expected = run(config, [8, 6, 8, 6, 8])
    worker, measured = first(config), []
    for count, x in zip((1, 2, 2, 1, 2), batches([8, 6, 8, 6, 8]), strict=True):
        use_threads(count)
        measured.append(worker.step(x))
    assert (measured, bits(worker.state())) == expected


def test_four_shards_have_the_same_bits_in_one_two_and_four_processes(some_processes, config):
    results = []
    for count in (1, 2, 4):
        some_processes(count)
        results.append(run(config, [8] * 3, shards=4))
    assert results[1:] == results[:1] * 2
    assert results[0] != run(config, [8] * 3)


def test_eight_shards_have_the_same_bits_in_one_process_and_eight(some_processes, config):
    some_processes(1)
    expected = run(config, [8] * 3, shards=8)
    some_processes(8)
    assert run(config, [8] * 3, shards=8) == expected


def test_a_resumed_run_has_the_same_bits_in_another_number_of_processes(some_processes, config):
    some_processes(1)
    expected, x = run(config, [8] * 4, shards=4), batches([8] * 4)
    some_processes(4)
    worker = first(config, 4)
    measured = [worker.step(part) for part in x[:2]]
    some_processes(2)
    resumed = CPUTrainer(worker.config, worker.state())
    measured += [resumed.step(part) for part in x[2:]]
    assert (measured, bits(resumed.state())) == expected


@pytest.mark.parametrize(("n", "shards"), [(8, 1), (7, 1), (8, 2), (6, 2), (2, 2), (8, 4), (4, 4), (8, 8)])
def test_the_steps_are_those_of_the_pure_step(two_processes, config, n, shards):
    worker = first(config, shards)
    state = State.first(config)
    for batch in batches([n] * 5):
        actual = worker.step(batch)
        state, expected = train_step(worker.config, state, batch)
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
    for tree in TREES:
        assert difference(worker.state().trees[tree], state.trees[tree]) <= 1e-3, tree


def test_a_worker_process_starts_where_there_is_work_for_two(two_processes, use_threads, monkeypatch, config):
    def helps(threads, n):
        use_threads(threads)
        worker = first(config)
        worker.step({"x": DIGITS[:n]})
        return len(worker.parallel.others) == 1

    assert helps(2, 8)
    assert not helps(1, 8)
    monkeypatch.setattr(data_parallel, "WORTH", 8 * first(config).packing.size)
    assert helps(2, 8)
    assert not helps(2, 6)


def test_two_runs_in_two_threads_do_not_disturb_each_other(two_processes, config):
    configs = [config, config.changed(["seed=1"])]
    alone = [run(c, [8] * 6) for c in configs]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda c: run(c, [8] * 6), configs))
    assert together == alone
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", ["gradient", "squares"])
def test_after_an_interrupt_the_step_can_be_made_again(two_processes, monkeypatch, config, name):
    expected = run(config, [8, 6, 8])
    worker, x = first(config), batches([8, 6, 8])
    measured = [worker.step(x[0])]

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker.parallel.local, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.step(x[1])
    measured += [worker.step(x[1]), worker.step(x[2])]
    assert (measured, bits(worker.state())) == expected


def test_a_killed_worker_process_is_an_error_that_says_so_and_the_step_can_be_made_again(two_processes, config):
    expected = run(config, [8, 8])
    worker, x = first(config), batches([8, 8])
    worker.step(x[0])
    process = worker.parallel.others[0].process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(DeviceError, match=r"worker process of the cpu engine ended, exit status -9"):
        worker.step(x[1])
    assert worker.step(x[1]) == expected[0][1]
    assert bits(worker.state()) == expected[1]
