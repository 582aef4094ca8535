"""What is played back has the bits of what is called, for every operation and for networks; what cannot be written down is
an error."""

import re
import tracemalloc
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from engines.cpu.operation_cases import CASES, both

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.engines.cpu.division import undivided
from refdiff.engines.cpu.memory import empty, pool, scratch
from refdiff.engines.cpu.recording import Repeated, Written, followed
from refdiff.models import MLPConfig, UNetConfig, flatten, layout, tree_map
from refdiff.random import Sequence

arena, recording = (import_module(f"refdiff.engines.cpu.{name}") for name in ("arena", "recording"))


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
    _, shapes, sizes, _ = CASES[name]

    def f(*arrays):
        parameters = dict(zip(sizes, arrays[len(shapes) : -1], strict=True))
        y, dx, g = both(name, arrays[: len(shapes)], parameters, arrays[-1])
        return joined(y, *dx, *(g[key] for key in sizes))

    rng = np.random.default_rng(0)
    y, *_ = both(name, [draw(rng, s) for s in shapes], {key: draw(rng, s) for key, s in sizes.items()})
    return f, lambda rng: [draw(rng, s) for s in (*shapes, *sizes.values(), y.shape)]


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
    others = {"dropout", "split", "embedding", "gelu", "fan_out", "time_embedding", "variational_term"}
    known = {operation for operation, *_ in CASES.values()} | others
    backwards = {name.removesuffix("_backward") for name in vars(cpu) if name.endswith("_backward")}
    assert backwards == known


@pytest.mark.parametrize("count", [12, 13])
def test_dropout_draws_anew_for_each_step(use_threads, count):
    use_threads(1)

    def f(x, step):
        y, saved = cpu.dropout(x, 0.5, Sequence(3, 1 << 16, step))
        return joined(y, cpu.dropout_backward(y, saved))

    steps = iter(range(100, 200))
    assert_same_bits(f, lambda rng: [draw(rng, (4, count)), np.asarray(next(steps))])


def test_split_fan_out_and_time(use_threads):
    use_threads(1)

    def f(x, t):
        (a, b), saved = cpu.split(x, 2)
        e, saved_time = cpu.time_embedding(t, 9, "adm")
        dt = cpu.time_embedding_backward(e, saved_time)
        return joined(cpu.split_backward((b, a), saved), cpu.fan_out_backward(a, b, a), e, dt)

    assert_same_bits(f, lambda rng: [draw(rng, (4, 6, 8)), rng.integers(1, 1000, 4)])


def test_the_times_of_both_engines_agree():
    t = np.array([1, 7, 1000])
    for convention in ("ddpm", "adm"):
        for channels in (4, 9, 128):
            came, saved = cpu.time_embedding(t, channels, convention)
            assert came.dtype == np.float32
            wanted, wanted_saved = reference.time_embedding(t, channels, convention)
            np.testing.assert_array_equal(came, wanted)
            np.testing.assert_array_equal(came, cpu.time_embedding(t.tolist(), channels, convention)[0])
            dy = draw(np.random.default_rng(channels), came.shape)
            dt = cpu.time_embedding_backward(dy, saved)
            assert dt.dtype == np.float32
            np.testing.assert_array_equal(dt, reference.time_embedding_backward(dy, wanted_saved))


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
        y, saved = models.forward(cpu, config, own, x, t, Sequence(0, 1 << 16, step, 5))
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
    "a number": (lambda x: np.add.reduce(x, axis=None), "expected an array to write down, got the number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_down_is_an_error_and_leaves_no_trace(use_threads, name):
    use_threads(1)
    f, message = REFUSED[name]
    x = np.ones((3, 4), np.float32)
    with pytest.raises(TypeError, match=message):
        Repeated(f, after=1)(x)
    assert type(empty((3, 4))) is type(scratch("of a test", 3, 4)) is np.ndarray
    assert_same_bits(lambda x: cpu.silu(x)[0], lambda rng: [draw(rng, (3, 4))])


def test_an_array_of_a_recording_means_nothing_outside_it(use_threads):
    use_threads(1)
    kept = []
    Repeated(lambda x: kept.append(x) or cpu.silu(x)[0], after=1)(np.ones(3, np.float32))
    assert isinstance(kept[0], Written)
    with pytest.raises(TypeError, match="used outside it"):
        kept[0] + 1


def test_a_recording_takes_no_more_memory_than_the_calls(use_threads):
    use_threads(1)
    arenas = []

    class Watched(arena.Arena):
        def __init__(self):
            super().__init__()
            arenas.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "Arena", Watched)
        f, drawn = there_and_back("group norm in bands")
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
