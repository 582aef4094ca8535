"""The multilayer perceptron for points."""

from dataclasses import FrozenInstanceError

import networks
import numpy as np
import pytest
from helpers import dense, silu
from hypothesis import given
from hypothesis import strategies as st
from models.cases import case

from refdiff.engines import reference as engine
from refdiff.models import MODELS, MLPConfig, flatten, layout, tree_map
from refdiff.random import Key
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

seeds = st.integers(0, 2**32 - 1)
configs = st.builds(
    MLPConfig,
    size=st.integers(1, 3),
    width=st.integers(4, 9),
    layers=st.integers(1, 3),
    time=st.sampled_from(["ddpm", "adm"]),
)


@given(configs, seeds)
def test_backward(drawn, config, seed):
    p, x, t = case(drawn, config, seed)
    check_backward(
        lambda x, p: networks.forward(engine, config, p, x, t),
        lambda dy, saved: networks.backward(engine, config, dy, saved),
        (x, p),
        np.random.default_rng(seed),
        1e-12,
    )


@given(configs, seeds)
def test_forward_is_what_the_docstring_says(drawn, config, seed):
    p, x, t = case(drawn, config, seed)
    y, _ = networks.forward(engine, config, p, x, t)
    emb, _ = engine.time_embedding(t, config.width, config.time, np.float64)
    emb = silu(dense(silu(dense(emb, p["time"]["linear1"])), p["time"]["linear2"]))
    h = dense(x, p["linear_in"])
    for i in range(config.layers):
        q = p[f"layer{i}"]
        h = h + dense(silu(dense(silu(h), q["linear1"]) + dense(emb, q["time"])), q["linear2"])
    assert relative_error(y, dense(silu(h), p["linear_out"])) <= 1e-12
    assert y.shape == x.shape


@given(configs, seeds)
def test_gradients_have_exactly_the_keys_and_shapes_of_the_parameters(drawn, config, seed):
    p, x, t = case(drawn, config, seed)
    for a in (x, t, *flatten(p).values()):
        a.flags.writeable = False
    y, saved = networks.forward(engine, config, p, x, t)
    dx, g = networks.backward(engine, config, y, saved)
    assert dx.shape == x.shape
    assert tree_map(np.shape, g) == tree_map(np.shape, p) == tree_map(lambda spec: spec.shape, layout(config))


@given(configs, seeds)
def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(drawn, config, seed):
    p, x, t = case(drawn, config, seed)
    y, _ = networks.forward(engine, config, p, x, t)
    each = [networks.forward(engine, config, p, x[i : i + 1], t[i : i + 1])[0] for i in range(len(x))]
    assert relative_error(np.concatenate(each), y) <= 1e-12


def test_float32_says_what_float64_says(drawn):
    config = MLPConfig()
    p, x, t = case(drawn, config, 0, dtype=np.float32)
    results = []
    for dtype in (np.float32, np.float64):
        cast = tree_map(lambda a, dtype=dtype: a.astype(dtype), p)
        y, saved = networks.forward(engine, config, cast, x.astype(dtype), t)
        results.append((y, *networks.backward(engine, config, (y / y.size).astype(dtype), saved)))
        assert all(a.dtype == dtype for a in (y, results[-1][1], *flatten(results[-1][2]).values()))
    assert relative_error(*results) <= 1e-5


def test_a_key_changes_nothing(drawn):
    """It has no dropout; the key is taken so that both networks are called alike."""
    config = MLPConfig(width=8)
    p, x, t = case(drawn, config, 0)
    with_key, without = (networks.forward(engine, config, p, x, t, key)[0] for key in (Key(0), None))
    assert np.array_equal(with_key, without)


def test_a_configuration_is_a_value():
    assert hash(MLPConfig()) == hash(MODELS["points"]) == hash(MLPConfig(2, 128, 3, "ddpm"))
    with pytest.raises(FrozenInstanceError):
        MLPConfig().size = 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size: expected an integer of at least 1, got 0"),
        ({"width": 3}, "width: expected an integer of at least 4, got 3"),
        ({"width": 8.0}, "width: expected an integer of at least 4, got 8.0"),
        ({"layers": 0}, "layers: expected an integer of at least 1, got 0"),
        ({"time": "edm"}, "time: expected one of ddpm, adm, got 'edm'"),
    ],
)
def test_configuration_says_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        MLPConfig(**wrong)
