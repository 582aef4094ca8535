"""When a function is captured, when replayed and when called as it is; what a capture leaves as it was."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest

from refdiff.engines import cpu
from refdiff.engines.cpu import Captured, graph_input
from refdiff.engines.cpu.runtime.captured import BUFFER
from refdiff.engines.cpu.runtime.context import using
from refdiff.engines.cpu.runtime.memory import empty
from refdiff.engines.cpu.runtime.thread_pool import available
from refdiff.engines.cpu.runtime.traced_array import TracedArray, call, is_capturing


def plus(x):
    y = empty(x.shape)
    return np.add(x, 1, out=y)


def test_it_is_captured_at_the_call_that_was_said(use_threads):
    use_threads(1)
    kinds = []
    graph = Captured(lambda x: kinds.append(type(x)) or plus(x), after=3)
    for i in range(6):
        assert graph(np.full(3, i, np.float32))[0] == i + 1
    assert kinds == [np.ndarray, np.ndarray, TracedArray]


@pytest.mark.parametrize("change", ["shape", "dtype", "state", "shards"])
def test_it_begins_anew_when_something_changes(use_threads, change):
    use_threads(1)
    state, kinds = [0], []
    graph = Captured(lambda x: kinds.append(type(x)) or plus(x), state=lambda: tuple(state))
    x = np.ones(6, np.float32)
    for _ in range(3):
        graph(x)
    other = {"shape": x[:5], "dtype": x.astype(np.int32)}.get(change, x)
    state[0] = change == "state"

    def again():
        return [graph(other) for _ in range(3)]

    if change == "shards":
        with using(shards=1):
            again()
    else:
        again()
    assert kinds == [np.ndarray, TracedArray] * 2


def test_constants_are_those_of_the_capture(use_threads):
    use_threads(1)
    weight, dynamic_weight, x = np.ones((3, 1, 2), np.float32)
    graph = Captured(lambda x: np.concatenate([x + 2 * weight, x + 2 * graph_input(dynamic_weight)]))
    for _ in range(3):
        graph(x)
    weight += 1
    dynamic_weight += 1
    assert graph(x).tolist() == [[3, 3], [5, 5]]


@pytest.mark.parametrize(("called", "replayed"), [(0.15, 0.0), (0.0, 0.15)])
def test_where_there_are_threads_the_faster_way_is_taken(use_threads, called, replayed):
    use_threads(2)
    threads = []

    def f(x):
        threads.append(available())
        if is_capturing():
            call(lambda x: sleep(replayed), x)
        else:
            sleep(called)
        return plus(x)

    graph = Captured(f)
    for i in range(12):
        assert graph(np.full(3, i, np.float32))[0] == i + 1
    if called > replayed:  # two calls that are timed, one for its working space, one that is captured
        assert threads == [2, 2, 1, 1]
    else:
        assert threads == [2, 2, 1, 1] + [2] * 7
        assert graph.capture is None


def test_what_was_not_captured_to_its_end_is_captured_the_next_time(use_threads):
    use_threads(1)
    kinds = []

    def f(x):
        kinds.append(type(x))
        if len(kinds) == 2:
            raise KeyboardInterrupt
        return plus(x)

    graph, x = Captured(f), np.ones(3, np.float32)
    graph(x)
    with pytest.raises(KeyboardInterrupt):
        graph(x)
    assert type(empty((3, 4))) is np.ndarray
    for _ in range(3):
        assert graph(x)[0] == 2
    assert kinds == [np.ndarray, TracedArray, TracedArray]


def test_a_profile_of_a_replay_names_the_operations(use_threads):
    use_threads(1)
    x, weight, bias = np.ones((4, 8, 8, 16), np.float32), np.ones((3, 3, 16, 16), np.float32), np.ones(16, np.float32)

    def f(x):
        y, saved = cpu.conv2d(x, weight, bias)
        dx, _ = cpu.conv2d_backward(y, saved)
        return cpu.silu(dx)[0]

    graph, results, lines = Captured(f), [], []
    for _ in range(4):
        with cpu.profile() as record:
            results.append(graph(x).tobytes())
        lines.append({(line.operation, line.algorithm, line.shapes): line for line in record.lines()})
    assert len(set(results)) == 1
    assert lines[0].keys() == lines[1].keys() == lines[3].keys()
    assert {name[:2] for name in lines[3]} == {
        ("conv2d", "winograd 2x2"),
        ("conv2d_backward", "winograd 2x2"),
        ("silu", ""),
    }
    assert all(line.calls == 1 and line.seconds > 0 for line in lines[3].values())
    assert graph(x).tobytes() == results[0]


def test_threads_of_the_program_do_not_disturb_each_other(use_threads):
    use_threads(1)
    graph = Captured(lambda x: cpu.softmax(cpu.silu(x)[0])[0])
    inputs = [np.random.default_rng(i).standard_normal((20, 300), dtype=np.float32) for i in range(40)]
    expected = [cpu.softmax(cpu.silu(x)[0])[0].tobytes() for x in inputs]
    with ThreadPoolExecutor(3) as threads:
        for _ in range(5):
            assert [y.tobytes() for y in threads.map(graph, inputs)] == expected


def test_a_result_is_fresh(use_threads):
    use_threads(1)
    graph = Captured(plus, after=1)
    results = [graph(np.full(3, i, np.float32)) for i in range(4)]
    assert [y[0] for y in results] == [1, 2, 3, 4]
    assert not np.shares_memory(results[2], results[3])


def test_floating_point_errors_are_handled_as_in_the_capture(use_threads):
    use_threads(1)

    def f(x):
        with np.errstate(divide="ignore"):
            y = 1 / x
        return np.log(y, out=empty(x.shape))

    graph = Captured(f, after=1)
    graph(np.ones(3, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graph(np.zeros(3, np.float32))[0] == np.inf
        with pytest.raises(RuntimeWarning, match="log"):
            graph(np.full(3, -1, np.float32))


def test_the_buffer_of_numpy_is_as_it_was(use_threads):
    use_threads(1)
    before, seen = np.getbufsize(), []
    graph = Captured(lambda x: call(lambda y: seen.append(np.getbufsize()), x) or plus(x), after=1)
    for _ in range(2):
        graph(np.ones(3, np.float32))
    assert seen == [before, BUFFER]
    assert np.getbufsize() == before
