"""The monotone network: its gradients, that it rises from 0 to 1 whatever its parameters are, and what it refuses; on every
engine of the host, and asked as networks of a run are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff import models
from refdiff.config import NetworkConfig
from refdiff.engines import cpu
from refdiff.engines import reference as engine
from refdiff.models import MonotoneConfig, Network, initialise, layout, tree_map
from refdiff.sampling import network_function
from refdiff.testing.derivatives import check_backward, complex_step

seeds = st.integers(0, 2**32 - 1)
T = np.linspace(0, 1, 101)


def weights(hidden, seed):
    """Of any sign and size."""
    rng = np.random.default_rng(seed)
    return tree_map(lambda spec: 3 * rng.standard_normal(spec.shape), layout(MonotoneConfig(hidden)))


def forward(p, t, hidden=5):
    return models.forward(engine, Network(MonotoneConfig(hidden), p), {"t": t})


@given(seeds, st.sampled_from([1, 5]))
def test_backward(seed, hidden):
    check_backward(
        lambda p: forward(p, np.random.default_rng(seed).random(7), hidden),
        lambda dy, saved: models.backward(engine, Network(MonotoneConfig(hidden), {}), dy, saved)[1],
        (weights(hidden, seed),),
        np.random.default_rng(seed),
        1e-12,
    )


@given(seeds, st.sampled_from([0, 1, 5, 64]))
def test_it_rises_from_0_to_1_and_its_slope_is_its_derivative(seed, hidden):
    p = weights(hidden, seed)
    y, _ = forward(p, T, hidden)
    assert (y["f"][0], y["f"][-1]) == (0, 1)
    assert (np.diff(y["f"]) > 0).all()
    m = {name: np.abs(p[name]) for name in ("slope", "rate", "weight")}

    def plain(t):
        units = m["weight"] / (1 + np.exp(-(np.multiply.outer(t, m["rate"]) + p["shift"])))
        return m["slope"] * t + units.sum(-1) / max(hidden, 1)

    slope = complex_step(plain, T, np.ones_like(T)) / (plain(np.ones(1)) - plain(np.zeros(1)))
    np.testing.assert_allclose(y["slope"], slope, rtol=1e-11)


def test_a_straight_line_is_one_and_nothing_moves_it():
    p = initialise(layout(MonotoneConfig(0)), 0, "gamma")
    y, saved = forward(p, T.astype(np.float32), 0)
    np.testing.assert_allclose(y["f"], T, atol=1e-7)
    assert np.array_equal(y["slope"], np.ones(101))
    dy = {name: np.full(101, 0.7, np.float32) for name in y}
    _, g = models.backward(engine, Network(MonotoneConfig(0), p), dy, saved)
    assert {name: np.abs(a).sum() for name, a in g.items()} == {"slope": 0, "rate": 0, "shift": 0, "weight": 0}


def test_at_first_it_is_nearly_a_straight_line():
    for hidden in (8, 64, 1024):
        y, _ = forward(initialise(layout(MonotoneConfig(hidden)), 0, "gamma", np.float64), T, hidden)
        assert np.abs(y["f"] - T).max() <= 0.01
        assert 0.5 < y["slope"].min() <= y["slope"].max() < 1.5


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("hidden", [0, 16])
def test_it_is_asked_as_other_networks_of_a_run_are(name, hidden):
    """By name, of several sizes of batch, again and again."""
    config = MonotoneConfig(hidden)
    p = initialise(layout(config), 0, "gamma")
    ask = network_function(name, Network(config, p))
    for n in (1, 5, 5, 5, 5, 5, 101):
        t = np.linspace(0, 1, n)
        y, expected = ask({"t": t}), forward(tree_map(np.float64, p), t, hidden)[0]
        assert set(y) == {"f", "slope"}
        for key in y:
            np.testing.assert_allclose(y[key], expected[key], rtol=1e-5, atol=1e-6)


def test_the_cpu_engine_says_what_the_reference_says():
    p, t = tree_map(np.float32, weights(33, 3)), np.random.default_rng(0).random(9).astype(np.float32)
    net = Network(MonotoneConfig(33), p)
    y, saved = models.forward(cpu, net, {"t": t})
    expected, of_expected = forward(tree_map(np.float64, p), t.astype(np.float64), 33)
    dy = {name: np.random.default_rng(1).standard_normal(9).astype(np.float32) for name in y}
    _, g = models.backward(cpu, net, dy, saved)
    _, g_expected = models.backward(engine, net, tree_map(np.float64, dy), of_expected)
    for a, b in ((y, expected), (g, g_expected)):
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=2e-5, atol=1e-6 * np.abs(b[key]).max())


def test_hidden_units_are_counted():
    for hidden in (-1, 0.5):
        with pytest.raises(ValueError, match=r"^hidden: expected an integer of at least 0, got"):
            MonotoneConfig(hidden)
    network = NetworkConfig(MonotoneConfig(7))
    assert NetworkConfig.from_dict(network.to_dict(), "networks.gamma.") == network
    assert network.to_dict()["kind"] == "monotone"
