"""Perceptron, convolutional encoder and decoder, and table: their gradients, what they are, and what they refuse."""

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from emulator import Emulator
from helpers import dense, emulated, silu
from hypothesis import given
from hypothesis import strategies as st

from refdiff import models
from refdiff.config import NetworkConfig
from refdiff.engines import cpu, cuda
from refdiff.engines import reference as engine
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.models import (
    ConvDecoderConfig,
    ConvEncoderConfig,
    MLPConfig,
    Network,
    PerceptronConfig,
    TableConfig,
    flatten,
    initialise,
    layout,
    tree_map,
)
from refdiff.testing.derivatives import check_backward
from refdiff.testing.measures import relative_error

NETWORKS = {
    "linear": PerceptronConfig((3,), (), (2,)),
    "perceptron": PerceptronConfig((2, 3, 1), (5, 4), (3, 1, 2), 2, "z"),
    "encoder": ConvEncoderConfig(8, 1, 4, (1, 2), 3, 2, 2),
    "encoder, deep": ConvEncoderConfig((4, 8), 2, 2, (1, 2, 3), 2, 1, 4),
    "encoder, one level": ConvEncoderConfig((3, 5), 1, 4, (1,), 1),
    "decoder": ConvDecoderConfig(8, 1, 4, (1, 2), 3, 2, 2),
    "decoder, deep": ConvDecoderConfig((4, 8), 2, 2, (1, 2, 3), 2, 1, 4),
    "decoder, one level": ConvDecoderConfig((3, 5), 1, 4, (1,), 1),
    "table": TableConfig(3, 2, (0.5, -1.0)),
    "mlp of a shape": MLPConfig((2, 3), 5, 1, outputs=2),
}
seeds = st.integers(0, 2**32 - 1)


def case(drawn, config, seed, n=3, dtype=np.float64):
    """Weights, and a batch of all that the network reads."""
    rng = np.random.default_rng(seed)
    batch = {
        name: rng.standard_normal((n, *entry.shape)).astype(dtype) if entry.kind == "float" else rng.integers(0, 3, n)
        for name, entry in models.inputs(config).items()
    }
    return drawn(layout(config), seed, dtype), batch


def floats(batch):
    return {name: a for name, a in batch.items() if a.dtype.kind == "f"}


@pytest.mark.parametrize("name", NETWORKS)
@given(seeds)
def test_backward(drawn, name, seed):
    """Of every parameter and of every input that is no integer."""
    config = NETWORKS[name]
    p, batch = case(drawn, config, seed)

    def backward(dy, saved):
        dinputs, g = models.backward(engine, Network(config, p), dy, saved, tuple(floats(batch)))
        return dinputs, g

    check_backward(
        lambda given, p: models.forward(engine, Network(config, p), batch | given),
        backward,
        (floats(batch), p),
        np.random.default_rng(seed),
        1e-12,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_have_exactly_the_keys_and_shapes_of_the_parameters(drawn, name):
    config = NETWORKS[name]
    p, batch = case(drawn, config, 0)
    for a in (*batch.values(), *flatten(p).values()):
        a.flags.writeable = False
    net = Network(config, p)
    y, saved = models.forward(engine, net, batch)
    dinputs, g = models.backward(engine, net, y, saved, tuple(floats(batch)))
    assert tree_map(np.shape, dinputs) == tree_map(np.shape, floats(batch))
    assert tree_map(np.shape, g) == tree_map(np.shape, p) == tree_map(lambda spec: spec.shape, layout(config))
    assert tree_map(np.shape, initialise(layout(config), 0)) == tree_map(np.shape, g)
    without, same = models.backward(engine, net, y, saved)
    assert without == {}
    assert all(np.array_equal(a, flatten(same)[path]) for path, a in flatten(g).items())
    assert np.array_equal(models.predict(engine, net, batch), y)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_says_its_outputs_and_of_a_sample_nothing_that_depends_on_the_others(drawn, name):
    config = NETWORKS[name]
    p, batch = case(drawn, config, 1)
    y = models.predict(engine, Network(config, p), batch)
    *places, last = config.shape if isinstance(config, MLPConfig) else config.outputs
    parts = config.outputs if isinstance(config, MLPConfig) else getattr(config, "parts", 1)
    assert y.shape == (3, *places, parts * last)
    each = [
        models.predict(engine, Network(config, p), {k: a[i : i + 1] for k, a in batch.items()}) for i in range(len(y))
    ]
    assert relative_error(np.concatenate(each), y) <= 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_says_what_float64_says(drawn, name):
    config, results = NETWORKS[name], []
    p, batch = case(drawn, config, 2, dtype=np.float32)
    for dtype in (np.float32, np.float64):
        net = Network(config, tree_map(lambda a, dtype=dtype: a.astype(dtype), p))
        given = batch | {k: a.astype(dtype) for k, a in floats(batch).items()}
        y, saved = models.forward(engine, net, given)
        dinputs, g = models.backward(engine, net, (y / y.size).astype(dtype), saved, tuple(floats(batch)))
        assert all(a.dtype == dtype for a in (y, *dinputs.values(), *flatten(g).values()))
        results.append((y, np.concatenate([a.ravel() for a in (*dinputs.values(), *flatten(g).values())])))
    assert relative_error(*results) <= 2e-5


def exact(drawn, config):
    """A case in float32, dy, and what the reference says of it in float64: y, the gradients of inputs and parameters."""
    p, batch = case(drawn, config, 3, dtype=np.float32)
    net = Network(config, tree_map(lambda a: a.astype(np.float64), p))
    y, saved = models.forward(engine, net, batch | {k: a.astype(np.float64) for k, a in floats(batch).items()})
    dy = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    return p, batch, dy, (y, *models.backward(engine, net, dy.astype(np.float64), saved, tuple(floats(batch))))


def check(actual, expected):
    """Values and gradients, each in norm."""
    (y, *trees), (y_expected, *trees_expected) = actual, expected
    assert relative_error(y, y_expected) <= 1e-5
    for tree, tree_expected in zip(trees, trees_expected, strict=True):
        assert flatten(tree).keys() == flatten(tree_expected).keys()
        for path, a in flatten(tree_expected).items():
            assert relative_error(flatten(tree)[path], a) <= 2e-5, path


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cpu_engine_says_what_the_reference_says(drawn, name):
    p, batch, dy, expected = exact(drawn, NETWORKS[name])
    net = Network(NETWORKS[name], p)
    y, saved = models.forward(cpu, net, batch)
    check((y, *models.backward(cpu, net, dy, saved, tuple(floats(batch)))), expected)


@emulated
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cuda_engine_says_what_the_reference_says(drawn, name):
    p, batch, dy, expected = exact(drawn, NETWORKS[name])
    device = Emulator(0)
    with cuda.use(cuda.Context(device, PerArrayAllocator(device))) as context:
        net = Network(NETWORKS[name], tree_map(lambda a: context.array(a, "float32"), p))
        told = {k: context.array(a, "float32" if a.dtype == np.float32 else "int32") for k, a in batch.items()}
        y, saved = models.forward(cuda, net, told)
        found = models.backward(cuda, net, context.array(dy, "float32"), saved, tuple(floats(batch)))
        actual = cuda.host(y), *(tree_map(cuda.host, tree) for tree in found)
    check(actual, expected)


# ---- what each is


@given(seeds)
def test_a_perceptron_is_what_its_docstring_says(drawn, seed):
    config = NETWORKS["perceptron"]
    p, batch = case(drawn, config, seed)
    h = dense(batch["z"].reshape(3, 6), p["linear0"])
    for i in (1, 2):
        h = dense(silu(h), p[f"linear{i}"])
    assert relative_error(models.predict(engine, Network(config, p), batch), h.reshape(3, 3, 1, 4)) <= 1e-13


@given(seeds)
def test_a_shape_is_flattened_and_changes_nothing_else(drawn, seed):
    """The same weights and the same numbers in a row; with two outputs, the parts stand side by side in the last axis."""
    shaped, flat = MLPConfig((2, 3), 5, 1, outputs=2), MLPConfig(6, 5, 1, outputs=2)
    assert layout(shaped) == layout(flat)
    p, batch = case(drawn, shaped, seed)
    y = models.predict(engine, Network(shaped, p), batch)
    rows = models.predict(engine, Network(flat, p), batch | {"x": batch["x"].reshape(3, 6)})
    assert np.array_equal(y.reshape(3, 12), rows)
    assert y.shape == (3, 2, 6)


@given(seeds)
def test_encoder_and_decoder_are_mirrors(drawn, seed):
    """The shapes of one, from the last to the first, are those of the other."""
    for a, b in (("encoder", "decoder"), ("encoder, deep", "decoder, deep")):
        encoder, decoder = NETWORKS[a], NETWORKS[b]
        assert (encoder.shape, encoder.outputs) == (decoder.outputs, decoder.shape)
        down = [s.shape for path, s in flatten(layout(encoder)).items() if path.endswith("conv/weight")]
        up = [s.shape for path, s in flatten(layout(decoder)).items() if path.endswith("conv/weight")]
        assert [(k, j, c_out, c_in) for k, j, c_in, c_out in reversed(down)] == up
        assert prod(encoder.smallest) == layout(encoder)["linear_out"]["weight"].shape[0]


def test_the_length_of_a_latent_reaches_the_image(drawn):
    """A group norm right behind the first layer would take it away."""
    config = ConvDecoderConfig(4, 1, 4, (1,), 2)
    p, batch = case(drawn, config, 0)
    p["linear_in"]["bias"][:] = 0
    one, two = (models.predict(engine, Network(config, p), {"z": a * batch["z"]}) for a in (1, 2))
    assert relative_error(one, two) > 0.1


def test_a_table_begins_with_what_it_was_given():
    for first, expected in (
        ((0.5,), np.full((3, 2), 0.5)),
        ((1.0, 2.0), np.array([[1.0, 2.0]] * 3)),
        (tuple(np.arange(6.0).tolist()), np.arange(6.0).reshape(3, 2)),
    ):
        config = TableConfig(3, 2, first)
        net = Network(config, initialise(layout(config), 0))
        assert np.array_equal(models.predict(engine, net, {"index": np.array([0, 1, 2])}), expected.astype(np.float32))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_configuration_is_written_and_read_back(name):
    table = json.loads(json.dumps(NetworkConfig(NETWORKS[name]).to_dict()))
    assert NetworkConfig.from_dict(table, "networks.own.").model == NETWORKS[name]
    assert hash(NETWORKS[name]) == hash(replace(NETWORKS[name]))


def test_a_size_that_is_a_number_is_written_as_one():
    assert NetworkConfig(MLPConfig(3)).to_dict()["size"] == 3
    assert NetworkConfig(MLPConfig((3,))).to_dict()["size"] == [3]
    assert MLPConfig([2, 3]) == MLPConfig((2, 3))
    assert PerceptronConfig([2], [3], [4]) == PerceptronConfig((2,), (3,), (4,))


# ---- what does not fit


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (PerceptronConfig, {"inputs": (0,)}, r"^inputs: expected at least one integer of at least 1 each, got \(0,\)"),
        (PerceptronConfig, {"inputs": ()}, r"^inputs: expected at least one integer of at least 1 each, got \(\)"),
        (PerceptronConfig, {"outputs": (2, 0)}, r"^outputs: expected at least one integer .* got \(2, 0\)"),
        (PerceptronConfig, {"outputs": 3}, r"^outputs: expected at least one integer .* got 3"),
        (PerceptronConfig, {"hidden": (0,)}, r"^hidden: expected integers of at least 1 each, got \(0,\)"),
        (PerceptronConfig, {"parts": 0}, "^parts: expected an integer of at least 1, got 0"),
        (PerceptronConfig, {"entry": ""}, "^entry: expected the name of what it reads"),
        (ConvEncoderConfig, {"latent": 0}, "^latent: expected an integer of at least 1, got 0"),
        (ConvDecoderConfig, {"latent": 0}, "^latent: expected an integer of at least 1, got 0"),
        (
            ConvEncoderConfig,
            {"size": 9},
            "^size: expected a multiple of 2, since 2 multipliers halve it 1 times, got 9",
        ),
        (ConvEncoderConfig, {"size": (8, 7)}, r"^size: expected a multiple of 2, .* got \(8, 7\)"),
        (ConvEncoderConfig, {"size": 0}, "^size: expected an integer of at least 1, got 0"),
        (ConvDecoderConfig, {"size": (8,)}, "^size: expected a side, or height and width"),
        (ConvDecoderConfig, {"channels": 0}, "^channels: expected an integer of at least 1"),
        (ConvDecoderConfig, {"multipliers": ()}, "^multipliers: expected at least one integer"),
        (ConvDecoderConfig, {"groups": 0}, "^groups: expected an integer of at least 1"),
        (TableConfig, {"rows": 0}, "^rows: expected an integer of at least 1, got 0"),
        (TableConfig, {"width": 0}, "^width: expected an integer of at least 1, got 0"),
        (
            TableConfig,
            {"rows": 3, "first": (1.0, 2.0)},
            "^first: expected so many numbers: 1, 3, for 3 rows of 1, got 2",
        ),
        (TableConfig, {"first": (float("nan"),)}, "^first: expected finite numbers"),
        (MLPConfig, {"size": (2, 0)}, r"^size: expected at least one integer of at least 1 each, got \(2, 0\)"),
        (MLPConfig, {"size": ()}, r"^size: expected at least one integer of at least 1 each, got \(\)"),
    ],
)
def test_configuration_says_what_does_not_fit(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)
