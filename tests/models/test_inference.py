"""Prediction without gradients: the same numbers, and nothing kept of the way to them."""

import gc
import weakref
from types import SimpleNamespace

import networks
import numpy as np
import pytest

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.engines.cpu.runtime.blocks import pool
from refdiff.engines.cpu.runtime.memory import release
from refdiff.models import MODELS, ClassifierConfig, MLPConfig, UNetConfig, layout, tree_map
from refdiff.models.inference import InferenceEngine, consume

CONFIGS = {
    "digits": MODELS["digits"],
    "adm": UNetConfig(8, 3, 16, (1, 2), 1, (4,), time="adm", resampling="pooled", dropout=0.5),
    "options": UNetConfig(
        8, 1, 16, (0.5, 1), 1, (4,), conditioning="scale_shift", resampling="residual", rescale="skips", head_channels=4,
        qkv="interleaved", classes=2, low_res=4,
    ),
    "classifier": ClassifierConfig(8, 1, 16, (1, 1), 1, (4,), resampling="residual"),
    "spatial": ClassifierConfig(4, 1, 8, (1,), 1, (), pooling="spatial_v2"),
    "mlp": MLPConfig(),
}  # fmt: skip


def drawn(config, dtype):
    rng = np.random.default_rng(0)
    p = tree_map(lambda spec: rng.standard_normal(spec.shape).astype(dtype) / 8, layout(config))
    return p, rng.standard_normal((3, *config.shape)).astype(dtype), np.array([1, 40, 900])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("engine", "dtype"), [(reference, np.float64), (cpu, np.float32)], ids=["reference", "cpu"])
def test_the_prediction_is_that_of_forward_to_the_bit(engine, dtype, name):
    p, x, t = drawn(CONFIGS[name], dtype)
    y, _ = networks.forward(engine, CONFIGS[name], p, x, t)
    assert networks.predict(engine, CONFIGS[name], p, x, t).tobytes() == y.tobytes()


def test_what_an_operation_saves_is_let_go():
    class Array(np.ndarray):
        pass

    saved = np.ones(3).view(Array)
    watched = weakref.ref(saved)
    box = [saved]
    del saved
    operations = SimpleNamespace(
        operation=lambda x, times=1: (x * times, box.pop()), operation_backward=lambda dy, saved: (dy, 2 * dy)
    )  # fmt: skip
    engine = InferenceEngine(operations)
    assert engine.operation(3, times=2) == (6, None)
    gc.collect()
    assert watched() is None
    assert engine.operation is engine.operation
    assert engine.operation_backward(3, None) == (3, 6)
    with pytest.raises(AttributeError):
        _ = engine.nothing


@pytest.mark.parametrize("module", [reference, cpu], ids=["reference", "cpu"])
def test_of_every_operation_the_result_is_the_engines_own(module):
    x, t = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32), np.array([1, 0, 2])
    table = np.arange(6.0).reshape(3, 2)
    table.flags.writeable = False
    engine = InferenceEngine(module)
    parts, saved = engine.split(x, 2)
    assert saved is None
    assert [a.tobytes() for a in parts] == [a.tobytes() for a in module.split(x, 2)[0]]
    (a, b), expected = engine.columns(table, t), module.columns(table, t)
    assert [a.tobytes(), b.tobytes()] == [c.tobytes() for c in expected]
    assert [d.tobytes() for d in engine.add_backward(x, None)] == [x.tobytes(), x.tobytes()]
    assert engine.affine(a, x, b, x).tobytes() == module.affine(a, x, b, x).tobytes()
    y, saved = engine.silu(x)
    assert saved is None
    assert y.tobytes() == module.silu(x)[0].tobytes()


def test_a_network_may_look_coefficients_up_and_say_several_things():
    def forward(engine, x, t):
        scale, shift = engine.columns(table, t)
        (low, high), of_split = engine.split(engine.affine(scale, x, shift, x), 2)
        y, of_silu = engine.silu(low)
        return {"y": y, "v": high}, (of_split, of_silu)

    table = np.arange(6.0).reshape(3, 2)
    table.flags.writeable = False
    x, t = np.random.default_rng(1).standard_normal((3, 4)), np.array([1, 0, 2])
    (plain, _), (bare, saved) = forward(reference, x, t), forward(InferenceEngine(reference), x, t)
    assert saved == (None, None)
    assert {name: a.tobytes() for name, a in bare.items()} == {name: a.tobytes() for name, a in plain.items()}


def test_a_prediction_needs_less_memory_than_a_forward_that_is_followed_by_a_backward():
    config = MODELS["digits"]
    p, _, _ = drawn(config, np.float32)
    x, t = np.ones((64, *config.shape), np.float32), np.full(64, 500)

    def needed(f):
        gc.collect()
        release()
        before = pool.bytes
        result = f()
        del result
        return pool.bytes - before

    assert needed(lambda: networks.predict(cpu, config, p, x, t)) < 0.6 * needed(
        lambda: networks.forward(cpu, config, p, x, t)
    )


def test_what_is_read_once_is_let_go():
    class Array(np.ndarray):
        pass

    values = [np.ones(3).view(Array) for _ in range(3)]
    watched = [weakref.ref(a) for a in values]
    saved = {"a": values[0], "block": {"b": values[1], "c": values[2]}}
    values.clear()
    taken = consume(saved)
    assert not saved
    assert taken["a"].sum() == 3
    block = taken["block"]
    assert [a() is None for a in watched] == [True, False, False]
    assert "b" in block
    assert block["b"].sum() == 3
    assert [a() is None for a in watched] == [True, True, False]
    for name in ("a", "block"):
        with pytest.raises(KeyError):
            taken[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_backward_reads_everything_once(name):
    p, x, t = drawn(CONFIGS[name], np.float64)
    y, saved = networks.forward(reference, CONFIGS[name], p, x, t)
    dx, g = networks.backward(reference, CONFIGS[name], y, saved)
    taken = consume(saved)
    again, g_again = networks.backward(reference, CONFIGS[name], y, taken)
    assert not taken
    assert again.tobytes() == dx.tobytes()
    assert [a.tobytes() for a in models.flatten(g_again).values()] == [a.tobytes() for a in models.flatten(g).values()]
