"""t by importance: what is remembered, what is drawn of it, and that the weights leave expectations and gradients alone."""

import numpy as np
import pytest
from gradients import gradient_error

from refdiff import models
from refdiff.engines import reference
from refdiff.models import MLPConfig, Network, tree_map
from refdiff.objectives import HISTORY, Denoising, ScheduleConfig, step_probability
from refdiff.objectives.importance import UNIFORM, first_losses, losses_after
from refdiff.random import Key

T = 6
SCHEDULE = ScheduleConfig("cosine", T)
KEY = Key(3, 5, 0, 8).under("Denoising")


def full(scale, seed=0):
    """A memory in which every t has its losses, of about this scale.   scale (T,)"""
    rng, memory = np.random.default_rng(seed), first_losses(len(scale))
    t = np.repeat(np.arange(1, len(scale) + 1), HISTORY)
    return losses_after(memory, t, scale[t - 1] * rng.uniform(0.5, 1.5, len(t)))


def probability(memory):
    return np.diff(memory["cumulative"].astype(np.float64))


def test_the_memory_holds_the_last_ten_losses_of_each_t_the_oldest_first():
    memory = losses_after(first_losses(3), np.array([2.0, 3.0, 2.0]), np.array([5, 6, 7]))
    assert memory["count"].tolist() == [0, 2, 1]
    assert memory["losses"][1, -2:].tolist() == [5, 7]
    before = {name: a.copy() for name, a in memory.items()}
    after = losses_after(memory, np.full(12, 2), np.arange(12))
    assert after["losses"][1].tolist() == list(range(2, 12))
    assert after["count"].tolist() == [0, HISTORY, 1]
    assert all(np.array_equal(memory[name], a) for name, a in before.items()), "update is pure"


def test_p_is_uniform_until_every_t_has_ten_losses():
    memory = losses_after(first_losses(T), np.repeat(np.arange(1, T), 20), np.repeat(np.arange(1.0, T), 20))
    np.testing.assert_allclose(probability(memory), 1 / T, atol=1e-7)
    memory = losses_after(memory, np.full(HISTORY - 1, T), np.full(HISTORY - 1, 9.0))
    np.testing.assert_allclose(probability(memory), 1 / T, atol=1e-7)
    memory = losses_after(memory, np.array([T]), np.array([9.0]))
    assert probability(memory)[-1] > probability(memory)[0]


def test_p_is_in_proportion_to_the_root_of_the_second_moment_and_a_thousandth_uniform():
    memory = full(np.arange(1.0, T + 1))
    root = np.sqrt((memory["losses"].astype(np.float64) ** 2).mean(axis=1))
    expected = 0.999 * root / root.sum() + 0.001 / T
    assert UNIFORM == 0.001
    np.testing.assert_allclose(step_probability(memory["losses"], memory["count"]), expected, rtol=1e-14)
    np.testing.assert_allclose(probability(memory), expected, atol=1e-7)
    np.testing.assert_allclose(memory["ratio"][1:] * T * probability(memory), 1, rtol=1e-7)
    assert (memory["cumulative"][0], memory["cumulative"][-1], memory["ratio"][0]) == (0, 1, 0)


def test_losses_of_0_leave_p_uniform_and_a_t_without_loss_is_never_forgotten():
    np.testing.assert_allclose(probability(full(np.zeros(T))), 1 / T, atol=1e-7)
    scale = np.ones(T)
    scale[2] = 0
    assert probability(full(scale))[2] == pytest.approx(0.001 / T, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 10, 1000, 10_000])
def test_every_t_has_a_probability_however_many_there_are(steps):
    scale = np.zeros(steps)
    scale[0] = 1
    p = probability(full(scale))
    assert p.min() > 0
    assert p.sum() == 1


def network():
    config = MLPConfig(3, 4, 1, outputs=2)
    p, rng = models.initialise(models.layout(config), 0), np.random.default_rng(0)
    return {"denoiser": Network(config, tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape), p))}


def objectives(weighting="simple"):
    how = {"schedule": SCHEDULE, "variance": "learned", "vlb_weight": 0.1, "weighting": weighting}
    return Denoising(**how, timesteps="importance"), Denoising(**how)


def images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 3)) / 127.5 - 1


@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_both_parts_of_the_hybrid_loss_are_weighed_and_the_memory_gets_the_whole_unweighted(weighting):
    important, plain = objectives(weighting)
    memory = full(np.arange(1.0, T + 1))
    batch = important.draw(reference, {"x": images(8)}, KEY, memory)
    assert np.array_equal(batch["ratio"], memory["ratio"][batch["t"]])
    terms, _ = important.loss_and_gradient(reference, network(), batch, KEY)
    expected, _ = plain.loss_and_gradient(reference, network(), batch, KEY)
    for name, term in expected.items():
        np.testing.assert_allclose(terms[name], batch["ratio"] * term, rtol=1e-14)
    np.testing.assert_array_equal(terms["unweighted"], expected["loss"])
    np.testing.assert_array_equal(terms["t"], batch["t"])
    after = important.update(memory, terms)
    for t, loss in zip(batch["t"], expected["loss"], strict=True):
        assert np.float32(loss) in after["losses"][t - 1]
    assert gradient_error(important, network(), batch, KEY, "denoiser") < 1e-12


def test_the_draw_is_a_function_of_the_memory_and_of_which_samples_these_are():
    important, _ = objectives()
    memory, data = full(np.arange(1.0, T + 1)), {"x": images(2000)}
    whole = important.draw(reference, data, KEY, memory)
    part = important.draw(reference, {"x": data["x"][1500:]}, KEY._replace(first=1500), memory)
    assert all(np.array_equal(part[name], whole[name][1500:]) for name in whole)
    counts = np.bincount(whole["t"], minlength=T + 1)[1:] / 2000
    np.testing.assert_allclose(counts, probability(memory), atol=0.045)  # 4 standard errors
    assert counts[-1] > 2 * counts[0]


def test_uniform_has_no_memory():
    plain = Denoising(schedule=SCHEDULE)
    assert plain.remember() == {}
    assert plain.update({}, {"loss": np.ones(3)}) == {}


def test_too_many_steps_and_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match=r"objective.timesteps: expected one of uniform, importance, got 'random'"):
        Denoising(timesteps="random")
    with pytest.raises(
        ValueError, match=r"objective.timesteps: expected uniform with more than 10000 steps.*T = 10001"
    ):
        Denoising(schedule=ScheduleConfig("cosine", 10_001), timesteps="importance")
