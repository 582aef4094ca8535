"""Guidance by a classifier: its gradient on each engine, the score form and the mean shift, and where neither acts."""

import numpy as np
import pytest
from helpers import draws
from toy_networks import ToyClassifier

from refdiff import models
from refdiff.config import Config
from refdiff.engines import cpu, reference
from refdiff.engines.cpu.runtime.context import using
from refdiff.models import Network
from refdiff.process import (
    SPACINGS,
    ancestral_step,
    classifier_guidance,
    classifier_shift,
    ddim_step,
    learned_log_variance,
    posterior_variance,
    predictor,
    rescaled_guidance,
    step_variance,
)
from refdiff.random import Key, normal
from refdiff.sampling import (
    Trained,
    denoiser,
    gradient_function,
    guided,
    log_posterior_gradient,
    network_function,
    run,
    sample,
    trajectory,
)
from refdiff.sampling.cpu import ParallelNetwork
from refdiff.sampling.settings import SampleConfig

SMALL = ["model.width=8", "model.groups=4", "schedule.T=20", "schedule.options={beta_end=0.5}", "sample.steps=5"]
LABEL = np.array([2, 0, 1])


def weights(config, seed=0, dtype="f", scale=0.3):
    """Of which none is zero."""
    rng = np.random.default_rng(seed)
    return models.tree_map(lambda spec: scale * rng.standard_normal(spec.shape).astype(dtype), models.layout(config))


def classifier(dtype="f", **options):
    config = ToyClassifier(**{"classes": 3, **options})
    return Network(config, weights(config, 1, dtype, 0.4))


def made(*changes, engine="reference", guide=True, classes=0):
    """Digits of 20 steps, unconditional unless classes are given, guided unless told otherwise."""
    config = Config.resolve("digits", changes=[*SMALL, f"model.classes={classes}", *changes])
    networks = {"denoiser": Network(config.model, weights(config.model, scale=0.2))}
    return Trained(networks, config.objective, config.sample, engine, classifier=classifier() if guide else None)


def images(n, seed=3):
    return draws(seed, (n, 8, 8, 1), 1)[0].astype("f")


# ---- the gradient


def test_it_is_the_complex_step_derivative_of_log_p():
    network, x, t = classifier("complex128"), images(3).astype("complex128"), np.array([1, 9, 20])
    network = Network(network.config, models.tree_map(np.real, network.p))
    away = draws(5, x.shape, 1)[0]
    gradient = log_posterior_gradient(reference, network, {"x": x.real, "t": t, "label": LABEL})
    logits = models.forward(reference, network, {"x": x + 1e-20j * away, "t": t})[0]
    log_p = logits[np.arange(3), LABEL] - np.log(np.exp(logits).sum(axis=1))
    expected = log_p.imag / 1e-20
    actual = (gradient * away).sum(axis=(1, 2, 3))
    assert np.abs(expected).min() > 1e-3
    assert np.all(np.abs(actual - expected) <= 1e-13 * np.linalg.norm(gradient) * np.linalg.norm(away))


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_in_single_precision_it_is_that_of_double_precision(engine):
    network, x, t = classifier(), images(3), np.array([1, 9, 20])
    double = Network(network.config, models.tree_map(np.float64, network.p))
    expected = log_posterior_gradient(reference, double, {"x": x.astype("d"), "t": t, "label": LABEL})
    gradient = gradient_function(engine, network)
    for _ in range(6):  # captured and replayed on cpu
        actual = gradient(x, t, LABEL)
        assert actual.dtype == np.float32
        assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)
    one = gradient(x, 9, LABEL)
    np.testing.assert_array_equal(one[1], gradient(x, np.array([9, 9, 9]), LABEL)[1])


def test_on_cpu_it_has_the_same_bits_in_one_process_and_in_two(two_processes, use_threads):
    network, x, results = classifier(), images(7), []
    for count in (1, 2):
        use_threads(count)
        gradient = gradient_function("cpu", network)
        results.append([])
        for i in range(6):  # of other labels and times each call, which a replay must read anew
            for n in (7, 2, 1):
                t, label = (np.arange(n) + i) % 20 + 1, (np.arange(n) + i) % 3
                results[-1].append(gradient(x[:n], t, label).tobytes())
    assert results[0] == results[1]
    assert len(set(results[0])) > 12
    with using(shards=1):
        batch = {"x": x[4:], "t": np.arange(4, 7) % 20 + 1, "label": np.arange(4, 7) % 3}
        part = log_posterior_gradient(cpu, network, batch)
    first = gradient_function("cpu", network)(x, np.arange(7) % 20 + 1, np.arange(7) % 3)
    np.testing.assert_array_equal(first[4:], part)


def test_it_goes_the_way_that_a_prediction_goes():
    gradient = gradient_function("cpu", classifier())
    assert isinstance(gradient.__closure__[0].cell_contents, ParallelNetwork)


# ---- what a step becomes


def step_of(trained, i, label, seed=0):
    """(t, s, x_t, x_s) of step number i of a run."""
    way = list(trajectory(trained, np.arange(3), seed, {"label": label}))
    timesteps = [*SPACINGS["uniform"](trained.objective.schedule.build(), 5)[::-1].tolist(), 0]
    return timesteps[i], timesteps[i + 1], way[i][1], way[i + 1][1]


def plain_prediction(trained, threshold=(-1, 1)):
    objective, network = trained.objective, trained.networks["denoiser"]
    model = denoiser(network_function("reference", network), {"label": LABEL}, objective.learned)
    return (
        objective.schedule.build(),
        model,
        predictor(objective.schedule.build(), model, objective.prediction, threshold),
    )


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "mu"])
def test_the_score_form_changes_the_prediction_before_x0_hat_is_held(prediction):
    trained = made(f"objective.prediction={prediction}", "sample.classifier_scale=4", "sample.eta=0")
    t, s, x, actual = step_of(trained, 1, LABEL)
    schedule, model, _ = plain_prediction(trained)
    gradient = gradient_function("reference", trained.classifier)(x, t, LABEL)
    guided_prediction = classifier_guidance(schedule, x, t, model(x, t)[0], gradient, 4.0, prediction)
    predict = predictor(schedule, lambda *_: guided_prediction, prediction, (-1, 1))
    np.testing.assert_allclose(actual, ddim_step(schedule, x, t, s, *predict(x, t)), atol=2e-6)
    plain = ddim_step(schedule, x, t, s, *plain_prediction(trained)[2](x, t)[:2])
    assert np.abs(actual - plain).max() > 1e-3


@pytest.mark.parametrize("variance", ["posterior", "beta", "learned"])
def test_the_mean_shift_is_added_after_x0_hat_is_held(variance):
    learned = ["objective.variance=learned"] if variance == "learned" else []
    changes = [*learned, "sample.method=ancestral", f"sample.variance={variance}", "sample.classifier_scale=3"]
    trained = made(*changes)
    for i in (1, 4):
        t, s, x, actual = step_of(trained, i, LABEL)
        schedule, _, predict = plain_prediction(trained)
        x0_hat, _, *v = predict(x, t)
        eps = normal(Key(0).under("sample")._replace(step=t)("step"), np.arange(3), x.shape[1:])
        gradient = gradient_function("reference", trained.classifier)(x, t, LABEL)
        if variance == "learned":
            sigma2 = np.exp(learned_log_variance(schedule, v[0], t, s)[0])
            plain = ancestral_step(schedule, x, t, s, x0_hat, eps, "learned", v=v[0])
        else:
            f = {"posterior": posterior_variance, "beta": step_variance}[variance]
            sigma2, plain = f(schedule, t, s), ancestral_step(schedule, x, t, s, x0_hat, eps, f)
        np.testing.assert_allclose(actual, plain + 3 * sigma2 * gradient, atol=2e-6)
        assert np.abs(actual - plain).max() > 1e-4 or s == 0
        by_shift = classifier_shift(lambda x, t, g=gradient: g, 3.0)(x, t, x, sigma2)
        np.testing.assert_allclose(actual - plain, by_shift, atol=2e-6)


@pytest.mark.parametrize("method", ["ddim", "ancestral", "heun", "dpmpp_2m", "dpmpp_2s", "euler", "euler_ancestral"])
def test_every_method_is_guided_and_scale_0_is_no_guidance_to_the_bit(method):
    none = sample(made(f"sample.method={method}", guide=False), 3, progress=False)
    zero = sample(made(f"sample.method={method}"), 3, conditions={"label": LABEL}, progress=False)
    assert zero.tobytes() == none.tobytes()
    two = made(f"sample.method={method}", "sample.classifier_scale=2")
    first, other = (sample(two, 3, conditions={"label": c}, progress=False) for c in (LABEL, (LABEL + 1) % 3))
    assert np.abs(first - none).max() > 1e-3
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_guidance_makes_the_class_that_is_asked_for_likelier(method):
    """By the classifier itself: the random denoiser knows no classes."""
    means = []
    for scale in (0, 3):
        trained = made(f"sample.method={method}", "sample.steps=20", f"sample.classifier_scale={scale}")
        x = sample(trained, 30, conditions={"label": np.arange(30) % 3}, progress=False)
        logits = models.predict(reference, trained.classifier, {"x": x, "t": np.ones(30, int)})
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        means.append(p[np.arange(30), np.arange(30) % 3].mean())
    assert means[1] > means[0] + 0.02


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_both_kinds_of_guidance_together_use_the_guided_prediction(method):
    """A denoiser with classes is told the label too."""
    changes = f"sample.method={method}", "sample.eta=0", "sample.guidance=3", "sample.classifier_scale=2"
    trained = made(*changes, classes=3)
    t, s, x, actual = step_of(trained, 1, LABEL)
    schedule, network = trained.objective.schedule.build(), trained.networks["denoiser"]
    predict = network_function("reference", network)
    full, empty = (denoiser(predict, {"label": c}) for c in (LABEL, np.full(3, 3)))
    prediction = guided(full, empty, 3.0)(x, t)[0]
    gradient = gradient_function("reference", trained.classifier)(x, t, LABEL)
    if method == "ddim":
        prediction = classifier_guidance(schedule, x, t, prediction, gradient, 2.0)
    x0_hat, eps_hat, *_ = predictor(schedule, lambda *_: prediction, "eps", (-1, 1))(x, t)
    if method == "ddim":
        expected = ddim_step(schedule, x, t, s, x0_hat, eps_hat)
    else:
        eps = normal(Key(0).under("sample")._replace(step=t)("step"), np.arange(3), x.shape[1:])
        expected = ancestral_step(schedule, x, t, s, x0_hat, eps) + 2 * posterior_variance(schedule, t, s) * gradient
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_one_process_and_two_draw_the_same_bits(two_processes, use_threads):
    results = []
    for method in ("ddim", "ancestral"):
        trained = made(f"sample.method={method}", "sample.classifier_scale=2", "sample.steps=8", engine="cpu")
        for count in (1, 2):
            use_threads(count)
            results.append(sample(trained, 5, conditions={"label": np.arange(5) % 3}, progress=False).tobytes())
    assert results[0] == results[1]
    assert results[2] == results[3]
    reference_run = trained._replace(engine="reference")
    expected = sample(reference_run, 5, conditions={"label": np.arange(5) % 3}, progress=False)
    actual = np.frombuffer(results[3], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, atol=5e-4)


# ---- where guidance acts


class Counted:
    """How often each network was asked, and at which t."""

    def __init__(self, monkeypatch):
        self.asked = {"denoiser": [], "classifier": []}
        for name, which in (("network_function", "denoiser"), ("gradient_function", "classifier")):
            monkeypatch.setattr(run, name, self.counting(getattr(run, name), which))

    def counting(self, make, which):
        def counted(*args):
            f = make(*args)

            def ask(*a):
                self.asked[which].append(int(np.ravel(a[0]["t"] if which == "denoiser" else a[1])[0]))
                return f(*a)

            return ask

        return counted


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_outside_of_its_interval_the_conditional_model_is_asked_once_and_nobody_else(monkeypatch, method):
    counted = Counted(monkeypatch)
    changes = f"sample.method={method}", "sample.guidance=3", "sample.classifier_scale=2"
    trained = made(*changes, "sample.guidance_interval=[6, 15]", classes=3)
    steps = SPACINGS["uniform"](trained.objective.schedule.build(), 5)[::-1].tolist()
    inside = [t for t in steps if 6 <= t <= 15]
    assert 0 < len(inside) < len(steps)
    way = list(trajectory(trained, np.arange(3), conditions={"label": LABEL}))
    assert counted.asked["classifier"] == inside
    assert counted.asked["denoiser"] == [t for t in steps for _ in range(2 if t in inside else 1)]
    plain = list(trajectory(made(f"sample.method={method}", classes=3), np.arange(3), conditions={"label": LABEL}))
    last = steps.index(inside[0])
    for (_, a), (_, b) in zip(way[: last + 1], plain, strict=False):
        assert a.tobytes() == b.tobytes()
    assert np.abs(way[last + 1][1] - plain[last + 1][1]).max() > 1e-4


def test_the_ends_of_the_interval_belong_to_it():
    settings = SampleConfig(guidance_interval=(6, 15))
    assert [t for t in range(1, 21) if settings.guides_at(t)] == list(range(6, 16))
    assert all(SampleConfig().guides_at(t) for t in (1, 1000))
    full, empty = (lambda x, t: (x + 1, x)), (lambda x, t: (x, None))
    x = draws(0, (3, 4), 1)[0]
    for t, factor in ((5, 1), (6, 3), (15, 3), (16, 1)):
        prediction, v = guided(full, empty, 3.0, settings=settings)(x, t)
        np.testing.assert_allclose(prediction, x + factor, atol=1e-14)
        assert v is x


def test_rescaling_comes_after_all_guidance_of_the_prediction_for_each_sample():
    x, settings = draws(0, (3, 4, 2), 1)[0], SampleConfig(guidance_rescale=0.7)
    full, empty = (lambda x, t: (np.sin(x), None)), (lambda x, t: (np.cos(3 * x), None))

    def guide(x, t, y):
        return y + 2 * np.tanh(x)

    both = guided(full, empty, 4.0)(x, 3)[0] + 2 * np.tanh(x)
    actual = guided(full, empty, 4.0, guide, settings)(x, 3)[0]
    np.testing.assert_allclose(actual, rescaled_guidance(np.sin(x), both, 0.7), rtol=1e-13)
    assert np.abs(actual - both).max() > 0.1
    assert guided(full, empty, 1.0, None, settings) is full


def test_the_settings_rescale_the_samples():
    by = {
        phi: made("sample.guidance=6", f"sample.guidance_rescale={phi}", classes=3, guide=False) for phi in (0.0, 0.7)
    }
    one, other = (sample(trained, 3, conditions={"label": LABEL}, progress=False) for trained in by.values())
    assert np.abs(one - other).max() > 1e-3


# ---- what does not fit


def refused(trained, label, *words):
    """Both of the functions that draw say it, before a network is asked."""
    network = trained.networks["denoiser"]
    broken = trained._replace(networks={"denoiser": network._replace(p={})})

    def drawn(trained):
        return sample(trained, 3, conditions=label, progress=False)

    for call in (drawn, lambda trained: next(trajectory(trained, np.arange(3), 0, label))):
        with pytest.raises(ValueError, match="^" + ".*".join(words)) as error:
            call(broken)
        assert "\n" not in str(error.value)


def test_a_classifier_and_a_model_that_do_not_fit_are_refused_by_what_differs():
    label, guide = {"label": LABEL}, made("sample.classifier_scale=2")
    shape = r"classifier: expected one of samples of \(8, 8, 1\), the model's shape, got"
    refused(guide._replace(classifier=classifier(size=6)), label, shape, r"\(6, 6, 1\)")
    refused(
        guide._replace(classifier=classifier(channels=3)), label, "classifier: expected one of", r"got \(8, 8, 3\)$"
    )
    five = made("sample.classifier_scale=2", classes=5)
    refused(five, label, "classifier: expected one of 5 classes, as the model has, got 3$")
    denoises = guide._replace(classifier=guide.networks["denoiser"])
    refused(denoises, label, "classifier: expected a network with classes", "has 0")
    refused(guide._replace(classifier=None), {}, r"sample.classifier_scale: expected 0 without a classifier, got 2;")


def test_labels_that_a_classifier_does_not_know_are_refused():
    for trained in (made("sample.classifier_scale=2"), made("sample.classifier_scale=2", classes=3)):
        for label in (-1, 3):
            refused(trained, {"label": label}, "label: expected integers from 0 to 2, the classifier's classes, got")
        refused(trained, {}, "label: expected the class to which the classifier guides, got none; give one")
        refused(trained, {"label": [0.5, 1, 2]}, "label: expected int numbers, got float64")


def test_settings_that_cannot_be_are_refused():
    trained = made("sample.guidance=1", guide=False)
    for changes, *words in (
        ({"guidance": 2.0}, "sample.guidance: expected 1, since no condition is left out in this training, got 2"),
        (
            {"guidance_interval": (1, 21)},
            "sample.guidance_interval: expected steps from 1 to",
            r"T = 20, got \[1, 21\]",
        ),
        ({"variance": "learned", "method": "ancestral"}, "sample.variance: expected posterior or beta, since"),
    ):
        settings = SampleConfig(**{"steps": 5, **changes})
        refused(trained._replace(settings=settings), {}, *words)
    shifted = made("sample.classifier_scale=2", "sample.method=ancestral", "sample.guidance_rescale=0.5")
    refused(shifted, {"label": LABEL}, "sample.guidance_rescale: expected 0 with ancestral steps", "got 0.5; take")
    both = made(
        "sample.classifier_scale=2",
        "sample.method=ancestral",
        "sample.guidance=2",
        "sample.guidance_rescale=0.5",
        classes=3,
    )
    assert np.isfinite(sample(both, 3, conditions={"label": LABEL}, progress=False)).all()  # the prediction is rescaled
    null = trained.objective.__class__(schedule=trained.objective.schedule, null=(("label", 3, 0.0),))
    untold = trained._replace(objective=null, settings=SampleConfig(guidance=2.0, steps=5))
    refused(untold, {}, "sample.guidance: expected 1")


@pytest.mark.parametrize("interval", [(3, 2), (0, 4), (5,), (1, 2, 3)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"guidance_interval: expected a first and a last t, from 1 on, .* got"):
        SampleConfig(guidance_interval=interval)


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("guidance_rescale", v) for v in (-0.1, 1.5, np.nan)), *(("classifier_scale", v) for v in (np.inf, np.nan))],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"sample.{name}: expected a"):
        SampleConfig(**{name: value})


def test_where_x_t_says_nothing_the_score_form_needs_an_interval_and_the_shift_none():
    """alpha_bar_T = 0 with the prediction v."""
    changes = "schedule.kind=cosine", "schedule.T=20", "schedule.options={beta_max=1.0}", "objective.prediction=v"
    config = Config.resolve("digits", changes=[*SMALL[:2], *changes, "sample.steps=5", "sample.classifier_scale=2"])
    network = Network(config.model, weights(config.model, scale=0.2))
    trained = Trained({"denoiser": network}, config.objective, config.sample, "reference", classifier=classifier())
    assert config.schedule.build().alpha_bar[-1] == 0
    words = (
        "sample.guidance_interval: expected one that ends before T with this schedule",
        "got all t; take",
        r"\[1,19\]$",
    )
    refused(trained, {"label": LABEL}, *words)
    for changed in ("sample.guidance_interval=[1,19]", "sample.method=ancestral"):
        settings = config.changed([changed]).sample
        x = sample(trained._replace(settings=settings), 3, conditions={"label": LABEL}, progress=False)
        assert np.isfinite(x).all()
