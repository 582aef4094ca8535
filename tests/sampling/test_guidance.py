"""Guidance and thresholding in their order: predictions are combined, v is the conditional one, x0_hat is held last."""

import numpy as np
import pytest
from helpers import draws

from refdiff import models
from refdiff.config import Config
from refdiff.models import Network
from refdiff.process import (
    PREDICTIONS,
    SPACINGS,
    classifier_free_guidance,
    convert,
    dynamic_threshold,
    linear,
    predictor,
)
from refdiff.random import Key, normal
from refdiff.sampling import Trained, denoiser, guided, network_function, sample, trajectory, unconditional
from refdiff.sampling.methods import threshold_of

S = linear(20, 0.02, 0.4)
SMALL = ["model.width=8", "model.groups=4", "model.classes=3", "schedule.T=20", "schedule.options={beta_end=0.5}"]


def made(*changes):
    """Class-conditional digits of 20 steps, with weights that say something, on the reference engine."""
    config = Config.resolve("digits", changes=[*SMALL, "engine=reference", "sample.steps=5", *changes])
    rng = np.random.default_rng(0)
    p = models.tree_map(lambda spec: 0.2 * rng.standard_normal(spec.shape).astype("f"), models.layout(config.model))
    return Trained({"denoiser": Network(config.model, p)}, config.objective, config.sample, "reference")


def pairs():
    """Two models: x_t -> prediction, v."""
    return (lambda x, t: (np.tanh(x + t), np.sin(x))), (lambda x, t: (np.cos(x - t), np.cos(x)))


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.3, 1.0, 7.5])
def test_predictions_are_combined_and_v_is_the_conditional_one(scale):
    x, (full, empty) = draws(0, (3, 2), 1)[0], pairs()
    prediction, v = guided(full, empty, scale)(x, 3)
    expected = classifier_free_guidance(full(x, 3)[0], empty(x, 3)[0], scale)
    assert np.allclose(prediction, expected, rtol=1e-14, atol=1e-15)
    assert np.array_equal(v, np.sin(x))
    assert guided(lambda x, t: (x, None), empty, scale)(x, 3)[1] is None


def test_without_exaggeration_and_without_condition_it_is_one_model_to_the_bit():
    x, (full, empty) = draws(0, (50, 2), 1)[0], pairs()
    assert guided(full, None, 1.0) is full
    assert guided(full, empty, 0.0)(x, 3)[0].tobytes() == empty(x, 3)[0].tobytes()


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_what_is_guided_is_the_prediction_before_x0_hat_is_held(kind):
    # Of two x0_hat beyond 1 the combination may be anything; held first, both would be 1, and so would it.
    x, (full, empty) = 0.1 * draws(0, (6, 8), 1)[0], [lambda x, t, v=v: (3 * v, x) for v in draws(1, (6, 8))]
    x0_hat, eps_hat, v = predictor(S, guided(full, empty, 4.0), kind, (-1, 1))(x, 9)
    one, other = (convert(S, x, 9, model(x, 9)[0], kind, "x0") for model in (full, empty))
    assert np.allclose(x0_hat, np.clip(other + 4 * (one - other), -1, 1), rtol=1e-12, atol=1e-12)
    assert abs(x0_hat).max() == 1
    held_first = np.clip(other, -1, 1) + 4 * (np.clip(one, -1, 1) - np.clip(other, -1, 1))
    assert not np.allclose(x0_hat, np.clip(held_first, -1, 1), atol=1e-2)
    assert np.allclose(eps_hat, convert(S, x, 9, x0_hat, "x0", "eps"), rtol=1e-13)
    assert np.array_equal(v, x)


@pytest.mark.parametrize("threshold", ["static", "dynamic", "none"])
def test_the_settings_name_what_holds_x0_hat(threshold):
    x, prediction = draws(0, (3, 4)), 9 * draws(1, (3, 4), 1)[0]
    how = threshold_of(made(f"sample.threshold={threshold}").settings)
    x0_hat, *_ = predictor(S, lambda x, t: (prediction, None), "x0", how)(x[0], 4)
    expected = {"static": np.clip(prediction, -1, 1), "dynamic": dynamic_threshold(prediction), "none": prediction}
    assert np.array_equal(x0_hat, expected[threshold])


@pytest.mark.parametrize("method", ["ddim", "ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("threshold", ["static", "dynamic"])
def test_strongly_guided_samples_stay_within_the_range_of_the_data(method, threshold):
    changes = f"sample.method={method}", f"sample.threshold={threshold}", "sample.guidance=20"
    x = sample(made(*changes), 4, conditions={"label": 2}, progress=False)
    assert abs(x).max() <= 1 + 1e-6  # the last step of each gives x0_hat
    loose = sample(made(*changes, "sample.threshold=none"), 4, conditions={"label": 2}, progress=False)
    assert abs(loose).max() > 1.5


@pytest.mark.parametrize("variance", ["fixed", "learned"])
def test_guidance_of_one_and_of_nothing_is_one_network_to_the_bit(variance):
    one, nothing, two = (
        made(
            f"objective.variance={variance}",
            "sample.method=ancestral",
            "sample.variance=beta",
            f"sample.guidance={scale}",
        )
        for scale in (1, 0, 2)
    )
    label = {"label": np.array([0, 2, 1])}
    conditional = sample(one, 3, conditions=label, progress=False)
    unguided = sample(one, 3, conditions={"label": 3}, progress=False)  # 3, one past the classes, stands for none
    assert sample(nothing, 3, conditions=label, progress=False).tobytes() == unguided.tobytes()
    assert not np.allclose(unguided, conditional, atol=1e-3)
    assert not np.allclose(sample(two, 3, conditions=label, progress=False), conditional, atol=1e-3)
    for at, labels in ((one, label), (nothing, {"label": np.full(3, 3)})):
        network, objective = at.networks["denoiser"], at.objective
        model = denoiser(network_function("reference", network), labels, objective.learned)
        steps = SPACINGS["uniform"](objective.schedule.build(), 5)[::-1].tolist()
        *_, (s, x), _ = trajectory(at, np.arange(3), conditions=label)
        x0_hat, *_ = predictor(objective.schedule.build(), model, "eps", (-1, 1))(x, s)
        assert s == steps[-1]
        assert x0_hat.tobytes() == (conditional if at is one else unguided).tobytes()  # the last step adds no noise


def test_the_variance_of_a_guided_step_is_the_conditional_models():
    trained = made("objective.variance=learned", "sample.method=ancestral", "sample.guidance=3")
    assert trained.settings.variance == "learned"
    label, network = {"label": np.array([0, 2, 1])}, trained.networks["denoiser"]
    predict = network_function("reference", network)
    full, empty = (denoiser(predict, c, True) for c in (label, unconditional(trained.objective, label)))
    x = normal(Key(0).under("sample")("start"), np.arange(3), (8, 8, 1))
    (_, v), (_, other) = full(x, 20), empty(x, 20)
    assert not np.allclose(v, other, atol=1e-3)
    prediction, actual = guided(full, empty, 3.0)(x, 20)
    assert np.array_equal(actual, v)
    assert np.allclose(prediction, 3 * full(x, 20)[0] - 2 * empty(x, 20)[0], atol=1e-4)
