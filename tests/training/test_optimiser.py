"""Adam, clipping, the learning rate and the moving average, each against its definition worked out another way."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.data import Dataset
from refdiff.models import leaves
from refdiff.training import adamw, clip, global_norm, learning_rate, moving_average, train, zeros_like

seeds = st.integers(0, 2**32 - 1)


def tree(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"a": rng.standard_normal((3, 2)).astype(dtype), "b": {"c": rng.standard_normal(5).astype(dtype)}}


@given(seeds, st.integers(1, 12), st.sampled_from([0.0, 0.1]))
def test_adam_equals_the_explicit_sums_of_its_moments(seed, steps, weight_decay):
    # m_n / (1 - beta1^n) = sum_i beta1^(n-i) g_i / sum_i beta1^(n-i), and likewise v: no recursion.
    p = q = tree(seed)
    m, v = zeros_like(p), zeros_like(p)
    gradients = [tree(seed + 1 + i) for i in range(steps)]
    for n in range(1, steps + 1):
        p, m, v = adamw(p, gradients[n - 1], m, v, n, 0.01, weight_decay)

        def weighted(beta, power, leaf, n=n):
            weights = beta ** np.arange(n - 1, -1, -1.0)
            return sum(w * leaf(g) ** power for w, g in zip(weights, gradients[:n], strict=True)) / weights.sum()

        def new(leaf, old):
            step = weighted(0.9, 1, leaf) / (np.sqrt(weighted(0.999, 2, leaf)) + 1e-8)
            return old - 0.01 * (step + weight_decay * old)

        q = {"a": new(lambda g: g["a"], q["a"]), "b": {"c": new(lambda g: g["b"]["c"], q["b"]["c"])}}
    np.testing.assert_allclose(p["a"], q["a"], rtol=1e-11)
    np.testing.assert_allclose(p["b"]["c"], q["b"]["c"], rtol=1e-11)


@given(seeds)
def test_the_first_step_of_adam_has_the_size_of_the_rate_whatever_the_scale_of_the_gradient(seed):
    p, g = tree(seed), tree(seed + 1)
    moved, _, _ = adamw(p, {"a": 1e4 * g["a"], "b": g["b"]}, zeros_like(p), zeros_like(p), 1, 0.25)
    np.testing.assert_allclose(np.abs(moved["a"] - p["a"]), 0.25, rtol=1e-6)


def test_the_weights_stay_float32_and_the_old_ones_unchanged():
    p, g = tree(0, np.float32), tree(1, np.float32)
    before = p["a"].copy()
    new, m, v = adamw(p, g, zeros_like(p), zeros_like(p), 1, 0.1)
    assert new["a"].dtype == m["a"].dtype == v["a"].dtype == moving_average(p, new, 1, 0.9)["a"].dtype == np.float32
    assert (p["a"] == before).all()
    assert not (new["a"] == before).any()


@given(seeds, st.floats(0.01, 10))
def test_clipping_keeps_the_direction_and_bounds_the_norm(seed, most):
    g = tree(seed)
    norm = global_norm(g)
    assert norm == pytest.approx(math.sqrt((g["a"] ** 2).sum() + (g["b"]["c"] ** 2).sum()), rel=1e-14)
    clipped = clip(g, norm, most)
    assert global_norm(clipped) == pytest.approx(min(norm, most), rel=1e-12)
    np.testing.assert_allclose(clipped["a"] * norm, g["a"] * global_norm(clipped), rtol=1e-12)


@given(st.integers(0, 50), st.integers(51, 500))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_zero(warmup, steps):
    rates = [learning_rate(step, steps, 0.5, warmup) for step in range(1, steps + 1)]
    top = max(warmup, 1) - 1
    assert rates[top] == pytest.approx(0.5, rel=1e-2)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b > 0 for a, b in pairwise(rates[top:]))
    assert rates[-1] == pytest.approx(0.25 * (1 - math.cos(math.pi / (steps - warmup + 1))), rel=1e-6)
    assert learning_rate(steps, steps, 0.5, warmup, "constant") == 0.5


def test_the_moving_average_is_a_weighted_mean_that_forgets_the_first_weights():
    values = [tree(i) for i in range(200)]
    average, weights = values[0], np.zeros(200)
    weights[0] = 1
    for step in range(1, 200):
        average = moving_average(average, values[step], step, 0.95)
        d = min(0.95, (1 + step) / (10 + step))
        weights = d * weights
        weights[step] = 1 - d
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert weights[0] < 1e-6
    np.testing.assert_allclose(average["a"], sum(w * v["a"] for w, v in zip(weights, values, strict=True)), rtol=1e-10)


@pytest.mark.parametrize("most", [1e-30, 1.0])
def test_a_gradient_of_zero_is_clipped_to_itself(most):
    g = {"a": np.zeros(3, np.float32)}
    assert (clip(g, global_norm(g), most)["a"] == 0).all()


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_data_that_a_new_model_already_knows_train_on(small, engine):
    # It predicts 0, which zeros are: loss and gradient are exactly 0.
    zeros = np.zeros((20, 8, 8, 1), np.float32)
    data = Dataset("zeros", zeros, None, zeros[:2], None)
    config = small.changed([f"engine={engine}", "objective.prediction=x0", "train.steps=2"])
    seen = []
    state = train(config, progress=False, data=data, on_step=seen.append)
    assert [(step.loss, step.gradient_norm) for step in seen] == [(0, 0), (0, 0)]
    assert all(np.isfinite(leaf).all() for _, leaf in leaves(state.trees["p"]))
