"""Samples through three runs, each told what the one before it made."""

from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator
from helpers import emulated

from refdiff.sampling import sample
from refdiff.sampling.cuda import CUDASampler
from refdiff.training import State, train, trained
from systems import cascade, rows


@pytest.fixture(scope="module")
def stages():
    """A trained model of each size."""
    found = []
    for size in cascade.SIZES:
        config = cascade.config(size, steps=200, engine="cpu")
        model = trained(config, train(config, data=cascade.DATA[size], progress=False))
        found.append(model._replace(stage=f"stage{size}", engine="reference"))
    return found


def test_a_label_decides_what_the_last_stage_draws(stages):
    label = np.arange(24) % 3
    images = cascade.cascade(stages, 24, label=label)
    assert [x.shape for x in images] == [(24, size, size, 1) for size in cascade.SIZES]
    whole = cascade.DATA[8].entries["x"]
    truth = np.stack([whole[c == rows.LABEL].mean(0) for c in range(3)])
    right = ((images[-1][:, None] - truth) ** 2).sum((2, 3, 4)).argmin(1) == label
    assert right.mean() >= 0.7  # by chance 0.33
    low, high = images[1:]
    assert np.corrcoef(rows.pooled(high, 2).ravel(), low.ravel())[0, 1] > 0.5


def test_a_sample_does_not_depend_on_the_others(stages):
    label = np.arange(6) % 3
    whole = cascade.cascade(stages, 6, label=label)
    part = cascade.cascade(stages, 3, label=label[:3])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[:3], b, atol=1e-5)


def test_each_stage_has_noise_of_its_own(stages):
    """One seed, one network, two names: other samples; the same name: the same."""
    base = stages[0]
    one, other, again = (
        sample(base._replace(stage=name), 4, conditions={"label": 0}, progress=False) for name in ("a", "b", "a")
    )
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def test_stages_that_do_not_fit_are_refused_before_anything_is_computed(stages):
    with pytest.raises(ValueError, match="stage stage8: expected to be told images of 2 x 2, got 4 x 4"):
        cascade.cascade([stages[0], stages[2]], 2)
    with pytest.raises(ValueError, match="stages: expected a name each, got same, same"):
        cascade.cascade([stage._replace(stage="same") for stage in stages[:2]], 2)
    with pytest.raises(ValueError, match="low: expected half of size = 8, or 0, got 2"):
        replace(stages[2].networks["denoiser"].config, low=2)
    with pytest.raises(ValueError, match="low_res: expected this condition, which the network takes, got none"):
        sample(stages[1], 2, progress=False)


def test_the_cpu_engine_draws_what_the_reference_draws(stages):
    label = np.arange(3)
    expected = cascade.cascade(stages, 3, label=label)
    actual = cascade.cascade([stage._replace(engine="cpu") for stage in stages], 3, label=label)
    for a, b in zip(actual, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)


@emulated
def test_the_cuda_engine_draws_what_the_reference_draws():
    config = cascade.config(4)
    model = trained(config, State.first(config))._replace(stage="stage4", settings=replace(config.sample, steps=2))
    low = cascade.DATA[4].entries["low_res"][:2]
    conditions = {"label": np.array([0, 2]), "low_res": low, "level": np.array([3, 3])}
    expected = sample(model, 2, 5, conditions, progress=False)
    *_, (_, actual) = CUDASampler(model._replace(engine="cuda"), Emulator())(np.arange(2), 5, conditions)
    assert np.linalg.norm(actual - expected) <= 2e-5 * np.linalg.norm(expected)
