"""A replay has the bits of a call, for every operation and for networks; what cannot be captured is an error."""

import re
import tracemalloc
from pathlib import Path

import networks
import numpy as np
import pytest
from engines.cpu.operation_cases import CASES, both

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.engines.cpu import Captured, graph_input
from refdiff.engines.cpu.runtime import captured
from refdiff.engines.cpu.runtime.arena import Arena
from refdiff.engines.cpu.runtime.blocks import pool
from refdiff.engines.cpu.runtime.context import using
from refdiff.engines.cpu.runtime.memory import empty, scratch
from refdiff.engines.cpu.runtime.shards import shards
from refdiff.engines.cpu.runtime.traced_array import TracedArray
from refdiff.models import ClassifierConfig, MLPConfig, UNetConfig, flatten, layout, tree_map
from refdiff.random import Key


def draw(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def joined(*arrays):
    """All their numbers, in order."""
    y, end = empty((sum(a.size for a in arrays),)), 0
    for a in arrays:
        y[end : end + a.size].reshape(a.shape)[...] = a
        end += a.size
    return y


def forward_and_backward(name):
    """inputs, parameters, dy -> y and all gradients, joined; and the arguments that it takes, drawn."""
    _, shapes, sizes, _ = CASES[name]

    def f(*arrays):
        parameters = dict(zip(sizes, arrays[len(shapes) : -1], strict=True))
        y, dx, g = both(name, arrays[: len(shapes)], parameters, arrays[-1])
        return joined(y, *dx, *(g[key] for key in sizes))

    rng = np.random.default_rng(0)
    y, *_ = both(name, [draw(rng, s) for s in shapes], {key: draw(rng, s) for key, s in sizes.items()})
    return f, lambda rng: [draw(rng, s) for s in (*shapes, *sizes.values(), y.shape)]


def assert_same_bits(f, drawn, calls=5, after=2):
    rng, graph = np.random.default_rng(1), Captured(f, after)
    for _ in range(calls):
        arguments = drawn(rng)
        before = [a.tobytes() for a in arguments]
        assert graph(*arguments).tobytes() == f(*arguments).tobytes()
        assert [a.tobytes() for a in arguments] == before
    assert graph.capture is not None


@pytest.mark.parametrize("name", CASES)
def test_an_operation_replayed_has_the_bits_of_one_called(use_threads, name):
    use_threads(1)
    assert_same_bits(*forward_and_backward(name))


def test_every_operation_is_among_these_or_below():
    others = {"cross_entropy", "dropout", "split", "embedding", "gelu", "time_embedding", "variational_term"}
    others |= {"cumulative_sum", "monotone", "posterior_step"}  # in test_noise_level_ops
    known = {operation for operation, *_ in CASES.values()} | others
    backwards = {name.removesuffix("_backward") for name in vars(cpu) if name.endswith("_backward")}
    assert backwards == known


@pytest.mark.parametrize("count", [12, 13])
def test_dropout_draws_anew_for_each_step(use_threads, count):
    use_threads(1)

    def f(x, step):
        y, saved = cpu.dropout(x, 0.5, Key(3, step)("mask"))
        return joined(y, cpu.dropout_backward(y, saved))

    steps = iter(range(100, 200))
    assert_same_bits(f, lambda rng: [draw(rng, (4, count)), np.asarray(next(steps))])


def test_split_fan_out_and_time(use_threads):
    use_threads(1)

    def f(x, t):
        (a, b), saved = cpu.split(x, 2)
        e, saved_time = cpu.time_embedding(t, 9, "adm")
        dt = cpu.time_embedding_backward(e, saved_time)
        return joined(cpu.split_backward((b, a), saved), cpu.accumulate(a, b, a), e, dt)

    assert_same_bits(f, lambda rng: [draw(rng, (4, 6, 8)), rng.integers(1, 1000, 4)])


@pytest.mark.parametrize("shape", [(5,), (4, 3), (1,)])
def test_an_embedding_reads_other_rows_in_each_replay(use_threads, shape):
    use_threads(1)
    dy_shape = *shape, 300

    def f(index, weight, dy):
        y, saved = cpu.embedding(index, weight)
        return joined(y, cpu.embedding_backward(dy, saved)["weight"])

    def drawn(rng):
        return [rng.integers(0, 7, shape), draw(rng, (7, 300)), draw(rng, dy_shape)]

    assert_same_bits(f, drawn)
    index, weight, dy = drawn(np.random.default_rng(5))
    y = reference.embedding(index, weight)[0]
    dweight = np.zeros_like(weight)
    for own in shards(len(index)):  # the order of sums is what makes their bits
        dweight += reference.embedding_backward(dy[own], (index[own], weight.shape))["weight"]
    assert f(index, weight, dy).tobytes() == joined(y, dweight).tobytes()


def test_a_replay_refuses_a_row_that_is_not_there(use_threads):
    use_threads(1)
    weight = np.ones((4, 3), np.float32)
    graph = Captured(lambda index: cpu.embedding(index, weight)[0])
    for _ in range(3):
        graph(np.array([0, 3]))
    assert graph.capture is not None
    for index in (-1, 4):
        with pytest.raises(AssertionError, match="embedding: expected rows from 0 to 3"):
            graph(np.array([0, index]))


CHOICES = {
    "where": lambda x, y: np.where(x > y, x, y),
    "where, with numbers": lambda x, y: np.where(np.less_equal(x, 0), np.float32(0), y[:, :1]),
    "where, of a number": lambda x, y: np.where(True, x, y),
    "where, of integers": lambda x, y: np.where((x > 0).view(np.int8), y, x),
    "where, into integers": lambda x, y: x + np.where(x > y, 1, 2),
    "comparisons": lambda x, y: x * (x < y) + y * (x >= y) + ((x == y) | (x != 0)),
    "where, outside an array": lambda x, y: np.where(np.array([True, False, True, False]), x, y),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_made_anew_in_each_replay(use_threads, name):
    use_threads(1)

    def f(x, y):
        return joined(CHOICES[name](x, y))

    assert_same_bits(f, lambda rng: [draw(rng, (3, 4)), draw(rng, (3, 4))])


def test_the_times_of_both_engines_agree():
    t = np.array([1, 7, 1000])
    for convention in ("ddpm", "adm"):
        for channels in (4, 9, 128):
            actual, saved = cpu.time_embedding(t, channels, convention)
            assert actual.dtype == np.float32
            wanted, wanted_saved = reference.time_embedding(t, channels, convention)
            np.testing.assert_array_equal(actual, wanted)
            np.testing.assert_array_equal(actual, cpu.time_embedding(t.tolist(), channels, convention)[0])
            dy = draw(np.random.default_rng(channels), actual.shape)
            dt = cpu.time_embedding_backward(dy, saved)
            assert dt.dtype == np.float32
            np.testing.assert_array_equal(dt, reference.time_embedding_backward(dy, wanted_saved))


CONFIGS = {
    "every option": UNetConfig(8, 3, 16, (1, 2), 1, (4,), heads=2, time="adm", resampling="pooled", dropout=0.3),
    "strided": UNetConfig(16, 1, 32, (1, 2, 2), 1, (8, 4)),
    "as ADM": UNetConfig(
        8, 3, 16, (0.5, 1), (1, 2), (4,), stem=0.5, head_channels=4, qkv="interleaved", conditioning="scale_shift",
        resampling="residual", rescale="residual", low_res=4, epsilon=1e-5, dropout=0.3, outputs=1,
    ),
    "skips": UNetConfig(8, 1, 8, (1, 1), 1, (), groups=4, rescale="skips", resampling="centred", embedding_silu="time"),
    "classifier": ClassifierConfig(8, 1, 8, (1, 2), 1, (4,), heads=2, groups=4, resampling="residual_projected"),
    "spatial": ClassifierConfig(4, 1, 8, (1,), 1, (), groups=4, pooling="spatial"),
    "spatial_v2": ClassifierConfig(4, 1, 8, (1,), 1, (), groups=4, pooling="spatial_v2"),
    "adaptive": ClassifierConfig(8, 1, 8, (1, 1), 1, (), groups=4, pooling="adaptive", resampling="plain"),
    "mlp": MLPConfig(),
}  # fmt: skip


@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_replayed_has_the_bits_of_one_called(use_threads, name, half):
    use_threads(1)
    config = CONFIGS[name]
    rng = np.random.default_rng(2)
    p = tree_map(lambda spec: draw(rng, spec.shape) / 4, layout(config))
    told = list(networks.inputs(config, draw(rng, (1, *config.shape)), np.ones(1, int)))

    def f(*arguments):
        *values, wanted, step = arguments
        net, batch = models.Network(config, tree_map(graph_input, p)), dict(zip(told, values, strict=True))
        y, saved = models.forward(cpu, net, batch, Key(0, step, 5))
        loss, of_loss = cpu.squared_error(y, wanted)
        dy, wrt = cpu.squared_error_backward(0.1, of_loss), [name for name in ("x", "low_res") if name in told]
        dinputs, g = models.backward(cpu, net, dy, models.consume(saved), tuple(wrt))
        return joined(y, loss, *dinputs.values(), *flatten(g).values())

    graph = Captured(f)
    for step in range(5):
        x = draw(rng, (5, *config.shape))
        for leaf in flatten(p).values():
            leaf += 0.01 * draw(rng, leaf.shape)
        cpu.forget_weights()
        batch = networks.inputs(config, x, rng.integers(1, 1000, 5))
        wanted = draw(rng, (5, config.classes) if isinstance(config, ClassifierConfig) else x.shape)
        arguments = *batch.values(), wanted, np.asarray(step)
        if half:
            with using(shards=1):
                actual, called = graph(*arguments), f(*arguments)
        else:
            actual, called = graph(*arguments), f(*arguments)
        assert actual.tobytes() == called.tobytes()
    assert len(graph.capture.calls) > 30


def test_the_example_of_the_guide(use_threads):
    use_threads(1)
    guide = Path(__file__).parents[4] / "docs" / "cpu.md"
    names = {}
    exec(re.search(r"```python\n(.*?)```", guide.read_text(), re.S).group(1), names)
    rng = np.random.default_rng(0)
    for _ in range(4):
        arguments = draw(rng, (3, 8, 8, 1)), rng.integers(1, 1000, 3), draw(rng, (3, 8, 8, 1))
        loss, bias = names["captured"](*arguments), names["bias"].copy()
        assert np.array_equal(loss, names["loss_and_gradient"](*arguments))
        assert np.array_equal(bias, names["bias"])
        for leaf in flatten(names["p"]).values():
            leaf *= np.float32(1.01)
        cpu.forget_weights()
    assert names["captured"].capture is not None


REFUSED = {
    "an unknown function": (lambda x: np.sort(x), "sort with such arguments cannot be captured"),
    "known, with another argument": (lambda x: np.copyto(empty(x.shape), x, where=x > 0), "copyto with such arguments"),
    "a copy": (lambda x: x.copy(), "a copy that no call makes"),
    "a copy by reshaping": (lambda x: x.T.reshape(-1), "a copy that no call makes"),
    "a copy by converting": (lambda x: x.astype(np.float64), "a copy that no call makes"),
    "a copy by choosing": (lambda x: x[[0, 1]], "a copy that no call makes"),
    "a view by choosing": (lambda x: x[0, 0], "float32 by index"),
    "a condition": (lambda x: x if x[:1, 0] > 1 else x + 1, "a number cannot be read"),
    "a number read": (lambda x: x + float(x[:1, 0]), "a number cannot be read"),
    "a number": (lambda x: np.add.reduce(x, axis=None), "expected an array to capture, got the number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_is_an_error_and_leaves_no_trace(use_threads, name):
    use_threads(1)
    f, message = REFUSED[name]
    x = np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match=message):
        Captured(f, after=1)(x)
    assert type(empty((3, 4))) is type(scratch("of a test", 3, 4)) is np.ndarray
    assert_same_bits(lambda x: cpu.silu(x)[0], lambda rng: [draw(rng, (3, 4))])


def test_an_array_of_a_capture_means_nothing_outside_it(use_threads):
    use_threads(1)
    kept = []
    Captured(lambda x: kept.append(x) or cpu.silu(x)[0], after=1)(np.ones(3, np.float32))
    assert isinstance(kept[0], TracedArray)
    with pytest.raises(TypeError, match="used outside it"):
        kept[0] + 1


def test_a_capture_takes_no_more_memory_than_the_calls(use_threads):
    use_threads(1)
    arenas = []

    class Watched(Arena):
        def __init__(self):
            super().__init__()
            arenas.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "Arena", Watched)
        f, drawn = forward_and_backward("group norm in bands")
        graph = Captured(f)
        for _ in range(3):
            graph(*drawn(np.random.default_rng(0)))
    called, replayed = arenas
    assert 0 < replayed.bytes <= 1.02 * called.bytes
    largest = 4 * 3 * 48 * 48 * 64
    assert replayed.bytes < 7 * largest  # y, dx, what f joins (twice as large) and little else


def test_a_replay_asks_for_next_to_no_memory(use_threads):
    use_threads(1)
    f, drawn = forward_and_backward("winograd 4x4")
    graph, arguments = Captured(f), drawn(np.random.default_rng(0))
    for _ in range(3):
        size = graph(*arguments).nbytes
    before = pool.fresh
    tracemalloc.start()
    graph(*arguments)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= size + 50_000
    assert pool.fresh == before
