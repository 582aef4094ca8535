"""What is played back has the bits of what is called, for every operation and for networks; what cannot be written down is
an error."""

import re
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.engines.cpu.division import undivided
from refdiff.engines.cpu.memory import empty, pool, scratch
from refdiff.engines.cpu.recording import Repeated, Written, call, followed
from refdiff.models import MLPConfig, UNetConfig, flatten, layout, tree_map
from refdiff.random import Key

arena, recording, workers = (import_module(f"refdiff.engines.cpu.{name}") for name in ("arena", "recording", "workers"))

FILTERS = {"weight": (3, 3, 16, 24), "bias": (24,)}
NORM = {"weight": (12,), "bias": (12,)}
CASES = {
    "winograd 4x4": ("conv2d", [(9, 16, 16, 16)], FILTERS, {}),
    "winograd of two forms": ("conv2d", [(7, 8, 8, 16)], FILTERS, {}),
    "taps": ("conv2d", [(3, 4, 4, 16)], FILTERS, {}),
    "columns": ("conv2d", [(5, 20, 20, 16)], FILTERS, {"stride": 2, "padding": (0, 1)}),
    "columns in bands": ("conv2d", [(3, 64, 64, 32)], {"weight": (3, 3, 32, 24), "bias": (24,)},
                         {"stride": 2, "padding": (0, 1)}),
    "few channels in": ("conv2d", [(5, 8, 8, 3)], {"weight": (3, 3, 3, 16), "bias": (16,)}, {}),
    "few channels out": ("conv2d", [(5, 8, 8, 16)], {"weight": (3, 3, 16, 3), "bias": (3,)}, {}),
    "linear": ("linear", [(5, 7, 40)], {"weight": (40, 33), "bias": (33,)}, {}),
    "large linear": ("linear", [(3, 400, 256)], {"weight": (256, 256), "bias": (256,)}, {}),
    "group norm": ("group_norm", [(5, 6, 6, 12)], NORM, {"groups": 4}),
    "group norm and silu": ("group_norm_silu", [(3, 48, 48, 64)], {"weight": (64,), "bias": (64,)}, {"groups": 8}),
    "adaptive": ("adaptive_group_norm_silu", [(5, 4, 4, 12), (5, 12), (5, 12)], NORM, {"groups": 4}),
    "layer norm": ("layer_norm", [(5, 30, 257)], {"weight": (257,), "bias": (257,)}, {}),
    "silu": ("silu", [(5, 40, 1000)], {}, {}),
    "gelu": ("gelu_tanh", [(5, 40)], {}, {}),
    "softmax": ("softmax", [(5, 3, 257)], {}, {}),
    "attention": ("attention", [(5, 9, 8), (5, 9, 8), (5, 9, 8)], {}, {"heads": 2}),
    "add": ("add", [(5, 6, 8), (5, 6, 8)], {}, {}),
    "broadcast_add": ("broadcast_add", [(5, 6, 6, 8), (5, 8)], {}, {}),
    "concat": ("concat", [(5, 6, 8), (5, 6, 4)], {}, {}),
    "reshape": ("reshape", [(5, 6, 8)], {}, {"shape": (5, 48)}),
    "upsample": ("upsample_nearest", [(5, 6, 6, 8)], {}, {}),
    "pool": ("average_pool", [(5, 6, 6, 8)], {}, {}),
    "loss": ("mean_squared_error", [(7, 5, 3), (7, 5, 3)], {}, {}),
}  # fmt: skip


def draw(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def joined(*arrays):
    """All their numbers, in order."""
    y, end = empty((sum(a.size for a in arrays),)), 0
    for a in arrays:
        y[end : end + a.size].reshape(a.shape)[...] = a
        end += a.size
    return y


def there_and_back(name):
    """inputs, parameters, dy -> y and all gradients, joined; and the arguments that it takes, drawn."""
    operation, shapes, sizes, options = CASES[name]
    forward, backward = getattr(cpu, operation), getattr(cpu, f"{operation}_backward")

    def f(*arrays):
        inputs, dy = arrays[: len(shapes)], arrays[-1]
        y, saved = forward(*inputs, **dict(zip(sizes, arrays[len(shapes) : -1], strict=True)), **options)
        came = backward(1.5 if y.ndim == 0 else dy, saved)
        *dx, g = came if isinstance(came, tuple) else (came,)
        return joined(y, *dx, *([g[key] for key in sizes] if isinstance(g, dict) else [g]))

    rng = np.random.default_rng(0)
    all_shapes = [*shapes, *sizes.values()]
    shape = forward(*(draw(rng, s) for s in shapes), **{k: draw(rng, s) for k, s in sizes.items()}, **options)[0].shape
    return f, lambda rng: [draw(rng, s) for s in (*all_shapes, shape)]


def assert_same_bits(f, drawn, calls=5, after=2):
    rng, repeated = np.random.default_rng(1), Repeated(f, after)
    for _ in range(calls):
        arguments = drawn(rng)
        before = [a.tobytes() for a in arguments]
        assert repeated(*arguments).tobytes() == f(*arguments).tobytes()
        assert [a.tobytes() for a in arguments] == before
    assert repeated._recording is not None


@pytest.mark.parametrize("name", CASES)
def test_an_operation_played_back_has_the_bits_of_one_called(use_threads, name):
    use_threads(1)
    assert_same_bits(*there_and_back(name))


def test_every_operation_is_among_these_or_below():
    others = {"dropout", "split", "embedding", "gelu", "fan_out", "time_embedding"}
    known = {operation for operation, *_ in CASES.values()} | others
    backwards = {name.removesuffix("_backward") for name in vars(cpu) if name.endswith("_backward")}
    assert backwards | {"time_embedding"} == known


@pytest.mark.parametrize("count", [12, 13])
def test_dropout_draws_anew_for_each_step(use_threads, count):
    use_threads(1)

    def f(x, step):
        y, saved = cpu.dropout(x, 0.5, Key(3, 1 << 16, step))
        return joined(y, cpu.dropout_backward(y, saved))

    steps = iter(range(100, 200))
    assert_same_bits(f, lambda rng: [draw(rng, (4, count)), np.asarray(next(steps))])


def test_split_fan_out_and_time(use_threads):
    use_threads(1)

    def f(x, t):
        (a, b), saved = cpu.split(x, 2)
        e = cpu.time_embedding(t, 9, "adm")
        return joined(cpu.split_backward((b, a), saved), cpu.fan_out_backward(a, b, a), e)

    assert_same_bits(f, lambda rng: [draw(rng, (4, 6, 8)), rng.integers(1, 1000, 4)])


def test_the_times_of_both_engines_agree():
    t = np.array([1, 7, 1000])
    for convention in ("ddpm", "adm"):
        for channels in (4, 9, 128):
            came = cpu.time_embedding(t, channels, convention)
            assert came.dtype == np.float32
            np.testing.assert_array_equal(came, reference.time_embedding(t, channels, convention))
            np.testing.assert_array_equal(came, cpu.time_embedding(t.tolist(), channels, convention))


CONFIGS = {
    "every option": UNetConfig(8, 3, 16, (1, 2), 1, (4,), heads=2, time="adm", downsampling="pooled", dropout=0.3),
    "strided": UNetConfig(16, 1, 32, (1, 2, 2), 1, (8, 4)),
    "mlp": MLPConfig(),
}


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_played_back_has_the_bits_of_one_called(use_threads, name, half):
    use_threads(1)
    config = CONFIGS[name]
    rng = np.random.default_rng(2)
    p = tree_map(lambda spec: draw(rng, spec.shape) / 4, layout(config))

    def f(x, t, wanted, step):
        own = tree_map(followed, p)
        y, saved = models.forward(cpu, config, own, x, t, Key(0, 1 << 16, step, 5))
        loss, difference = cpu.mean_squared_error(y, wanted)
        dx, g = models.backward(cpu, config, cpu.mean_squared_error_backward(0.5, difference), models.once(saved))
        return joined(y, loss, dx, *flatten(g).values())

    repeated = Repeated(f)
    for step in range(5):
        x, wanted = draw(rng, (2, 5, *config.shape))
        for leaf in flatten(p).values():
            leaf += 0.01 * draw(rng, leaf.shape)
        cpu.forget_weights()
        arguments = x, rng.integers(1, 1000, 5), wanted, np.asarray(step)
        if half:
            with undivided():
                came, called = repeated(*arguments), f(*arguments)
        else:
            came, called = repeated(*arguments), f(*arguments)
        assert came.tobytes() == called.tobytes()
    assert len(repeated._recording.calls) > 30


def plus(x):
    y = empty(x.shape)
    return np.add(x, 1, out=y)


def test_the_example_of_the_guide(use_threads):
    use_threads(1)
    guide = Path(__file__).parents[3] / "docs" / "cpu.md"
    names = {}
    exec(re.search(r"```python\n(.*?)```", guide.read_text(), re.S).group(1), names)
    rng = np.random.default_rng(0)
    for _ in range(4):
        arguments = draw(rng, (3, 8, 8, 1)), rng.integers(1, 1000, 3), draw(rng, (3, 8, 8, 1))
        came = names["repeated"](*arguments), names["bias"].copy()
        assert came == (names["loss_and_gradient"](*arguments), names["bias"])
        for leaf in flatten(names["p"]).values():
            leaf *= np.float32(1.01)
        cpu.forget_weights()
    assert names["repeated"]._recording is not None


REFUSED = {
    "an unknown function": (lambda x: np.sort(x), "sort with such arguments cannot be written down"),
    "known, with another argument": (lambda x: np.copyto(empty(x.shape), x, where=x > 0), "copyto with such arguments"),
    "a copy": (lambda x: x.copy(), "a copy that no call makes"),
    "a copy by reshaping": (lambda x: x.T.reshape(-1), "a copy that no call makes"),
    "a copy by converting": (lambda x: x.astype(np.float64), "a copy that no call makes"),
    "a copy by choosing": (lambda x: x[[0, 1]], "a copy that no call makes"),
    "a view by choosing": (lambda x: x[0, 0], "float32 by index"),
    "a condition": (lambda x: x if x[:1, 0] > 1 else x + 1, "a number cannot be read"),
    "a number read": (lambda x: x + float(x[:1, 0]), "a number cannot be read"),
    "a number": (lambda x: np.add.reduce(x, axis=None), "expected an array to write down, came the number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_down_is_an_error_and_leaves_no_trace(use_threads, name):
    use_threads(1)
    f, message = REFUSED[name]
    x = np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match=message):
        Repeated(f, after=1)(x)
    assert type(empty((3, 4))) is type(scratch("of a test", 3, 4)) is np.ndarray
    assert_same_bits(plus, lambda rng: [draw(rng, (3, 4))])


def test_an_array_of_a_recording_means_nothing_outside_it(use_threads):
    use_threads(1)
    kept = []
    Repeated(lambda x: kept.append(x) or plus(x), after=1)(np.ones(3, np.float32))
    assert isinstance(kept[0], Written)
    with pytest.raises(TypeError, match="used outside it"):
        kept[0] + 1


def test_it_is_written_down_at_the_call_that_was_said(use_threads):
    use_threads(1)
    kinds = []
    repeated = Repeated(lambda x: kinds.append(type(x)) or plus(x), after=3)
    for i in range(6):
        assert repeated(np.full(3, i, np.float32))[0] == i + 1
    assert kinds == [np.ndarray, np.ndarray, Written]


@pytest.mark.parametrize("change", ["shape", "dtype", "state", "division"])
def test_it_begins_anew_when_something_changes(use_threads, change):
    use_threads(1)
    state, kinds = [0], []
    repeated = Repeated(lambda x: kinds.append(type(x)) or plus(x), state=lambda: tuple(state))
    x = np.ones(6, np.float32)
    for _ in range(3):
        repeated(x)
    other = {"shape": x[:5], "dtype": x.astype(np.int32)}.get(change, x)
    state[0] = change == "state"

    def again():
        return [repeated(other) for _ in range(3)]

    if change == "division":
        with undivided():
            again()
    else:
        again()
    assert kinds == [np.ndarray, Written] * 2


def test_constants_are_those_of_the_writing(use_threads):
    use_threads(1)
    weight, followed_weight, x = np.ones((3, 1, 2), np.float32)
    repeated = Repeated(lambda x: joined(x + 2 * weight, x + 2 * followed(followed_weight)))
    for _ in range(3):
        repeated(x)
    weight += 1
    followed_weight += 1
    assert repeated(x).tolist() == [3, 3, 5, 5]


@pytest.mark.parametrize(("called", "played"), [(0.02, 0.0), (0.0, 0.02)])
def test_where_there_are_threads_the_faster_way_is_taken(use_threads, called, played):
    use_threads(2)
    threads = []

    def f(x):
        threads.append(workers.available())
        if recording.writing():
            call(lambda x: sleep(played), x)
        else:
            sleep(called)
        return plus(x)

    repeated = Repeated(f)
    for i in range(12):
        assert repeated(np.full(3, i, np.float32))[0] == i + 1
    if called > played:  # two calls that are timed, one for its working space, one that is written down
        assert threads == [2, 2, 1, 1]
    else:
        assert threads == [2, 2, 1, 1] + [2] * 7
        assert repeated._recording is None


def test_what_was_not_written_to_its_end_is_written_the_next_time(use_threads):
    use_threads(1)
    kinds = []

    def f(x):
        kinds.append(type(x))
        if len(kinds) == 2:
            raise KeyboardInterrupt
        return plus(x)

    repeated, x = Repeated(f), np.ones(3, np.float32)
    repeated(x)
    with pytest.raises(KeyboardInterrupt):
        repeated(x)
    assert type(empty((3, 4))) is np.ndarray
    for _ in range(3):
        assert repeated(x)[0] == 2
    assert kinds == [np.ndarray, Written, Written]


def test_a_profile_of_what_is_played_back_names_the_operations(use_threads):
    use_threads(1)
    x, weight, bias = np.ones((4, 8, 8, 16), np.float32), np.ones((3, 3, 16, 16), np.float32), np.ones(16, np.float32)

    def f(x):
        y, saved = cpu.conv2d(x, weight, bias)
        dx, g = cpu.conv2d_backward(y, saved)
        return joined(cpu.silu(dx)[0], plus(y), g["bias"])

    repeated, results, lines = Repeated(f), [], []
    for _ in range(4):
        with cpu.profile() as record:
            results.append(repeated(x).tobytes())
        lines.append({(line.operation, line.form, line.shapes): line for line in record.lines()})
    assert len(set(results)) == 1
    assert lines[0].keys() == lines[1].keys() == lines[3].keys()
    assert {name[:2] for name in lines[3]} == {
        ("conv2d", "winograd 2x2"),
        ("conv2d_backward", "winograd 2x2"),
        ("silu", ""),
    }
    assert all(line.calls == 1 and line.seconds > 0 for line in lines[3].values())
    assert repeated(x).tobytes() == results[0]


def test_threads_of_the_program_do_not_disturb_each_other(use_threads):
    use_threads(1)
    repeated = Repeated(lambda x: cpu.softmax(cpu.silu(x)[0])[0])
    inputs = [draw(np.random.default_rng(i), (20, 300)) for i in range(40)]
    wanted = [cpu.softmax(cpu.silu(x)[0])[0].tobytes() for x in inputs]
    with ThreadPoolExecutor(3) as threads:
        for _ in range(5):
            assert [y.tobytes() for y in threads.map(repeated, inputs)] == wanted


def test_a_result_is_fresh(use_threads):
    use_threads(1)
    repeated = Repeated(plus, after=1)
    results = [repeated(np.full(3, i, np.float32)) for i in range(4)]
    assert [y[0] for y in results] == [1, 2, 3, 4]
    assert not np.shares_memory(results[2], results[3])


def test_floating_point_errors_are_handled_as_where_they_were_written(use_threads):
    use_threads(1)

    def f(x):
        with np.errstate(divide="ignore"):
            y = 1 / x
        return np.log(y, out=empty(x.shape))

    repeated = Repeated(f, after=1)
    repeated(np.ones(3, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repeated(np.zeros(3, np.float32))[0] == np.inf
        with pytest.raises(RuntimeWarning, match="log"):
            repeated(np.full(3, -1, np.float32))


def test_the_buffer_of_numpy_is_as_it_was(use_threads):
    use_threads(1)
    before, seen = np.getbufsize(), []
    repeated = Repeated(lambda x: call(lambda y: seen.append(np.getbufsize()), x) or plus(x), after=1)
    for _ in range(2):
        repeated(np.ones(3, np.float32))
    assert seen == [before, recording._BUFFER]
    assert np.getbufsize() == before


def test_a_recording_takes_no_more_memory_than_the_calls(use_threads):
    use_threads(1)
    arenas = []

    class Watched(arena.Arena):
        def __init__(self):
            super().__init__()
            arenas.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "Arena", Watched)
        f, drawn = there_and_back("group norm and silu")
        repeated = Repeated(f)
        for _ in range(3):
            repeated(*drawn(np.random.default_rng(0)))
    called, written = arenas
    assert 0 < written.bytes <= 1.02 * called.bytes
    largest = 4 * 3 * 48 * 48 * 64
    assert written.bytes < 7 * largest  # y, dx, what f joins (twice as large) and little else


def test_playing_back_asks_for_next_to_no_memory(use_threads):
    use_threads(1)
    f, drawn = there_and_back("winograd 4x4")
    repeated, arguments = Repeated(f), drawn(np.random.default_rng(0))
    for _ in range(3):
        size = repeated(*arguments).nbytes
    before = pool.fresh
    tracemalloc.start()
    repeated(*arguments)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= size + 50_000
    assert pool.fresh == before


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), max_size=60))
def test_places_of_an_arena_do_not_overlap_and_come_back(steps):
    own, held, most, now = arena.Arena(), [], 0, 0
    for give_back, count in steps:
        if give_back and held:
            now -= held.pop(count % len(held)).nbytes
        else:
            a = own.empty((count,))
            a[:] = len(held)
            held.append(a)
            now += a.nbytes
        most = max(most, now)
        starts = sorted((a.__array_interface__["data"][0], a.nbytes) for a in held)
        assert all(start + size <= later for (start, size), (later, _) in pairwise(starts))
    assert own.bytes <= 2 * most + 4096 * len(steps)
    a = None
    held.clear()
    assert own._free == [(0, 0, arena._REGION)] if own._regions else not own._free


def test_an_arena_grows(monkeypatch):
    monkeypatch.setattr(arena, "_REGION", 1 << 16)
    own = arena.Arena()
    arrays = [own.empty((n,)) for n in (5000, 5000, 50_000, 5000)]
    for i, a in enumerate(arrays):
        a[:] = i
    assert [a[0] for a in arrays] == [0, 1, 2, 3]
    assert own.bytes >= sum(a.nbytes for a in arrays)
    assert len(own._regions) == 2
    view = arrays[1][10:20]
    del arrays, a
    assert sorted(own._free) == [(0, 0, 20480), (0, 40960, 1 << 16), (1, 0, 200704)]
    del view
    assert own._free == [(0, 0, 1 << 16), (1, 0, 200704)]
