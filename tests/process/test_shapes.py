"""Nothing is broadcast: every public function of process that takes several arrays refuses shapes that differ."""

import inspect
import re

import numpy as np
import pytest

from refdiff import process
from refdiff.process import (
    CONVERSIONS,
    PREDICTIONS,
    bound_terms,
    classifier_free_guidance,
    classifier_guidance,
    classifier_shift,
    convert,
    fixed_reverse,
    l_hybrid,
    l_simple,
    l_simple_backward,
    l_vlb_term,
    l_weighted,
    l_weighted_backward,
    learned_reverse,
    linear,
    predictor,
    target,
)
from refdiff.process.arrays import namespace

S = linear(10, 0.05, 0.3)
CONTINUOUS = process.linear_gamma(-4, 4)
SHAPE = (4, 3, 2, 1)
WRONG = [(1, 3, 2, 1), (4, 3, 2, 3), (3, 2, 1), (4, 1, 1, 1), (1,), ()]


def draws(n):
    return [np.random.default_rng(i).uniform(-0.9, 0.9, SHAPE) for i in range(n)]


def twice(x):
    """As many channels again, where there are any."""
    return namespace(x).concat([x, x], axis=-1) if x.ndim else x


def bits(x):
    """Of the same library and dtype: 1 where x is positive, else 0."""
    xp = namespace(x)
    return xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))


def run(sampler, *names):
    """The sampler with x, and a prediction and a noise that are given."""

    def call(**a):
        noise = (lambda t: a["noise"],) if "noise" in names else ()
        return list(sampler(S, lambda x, t: (a.get("x0_hat", x), a.get("eps_hat", x)), a["x"], [2, 5, 9], *noise))

    return ("x", *names), call


def late(sampler, name):
    """The sampler whose second prediction of a step, or of a run, is given."""

    def call(**a):
        asked = []

        def predict(x, t):
            asked.append(t)
            return (a[name], x) if len(asked) == 2 and name == "x0_hat" else (x, a[name] if len(asked) == 2 else x)

        return list(sampler(S, predict, a["x"], [2, 9]))

    return ("x", name), call


# name -> the names of its arrays, as messages have them, and the function of these.
CALLS = {
    "q_step": (("x_prev", "eps"), lambda x_prev, eps: process.q_step(S, x_prev, 3, eps)),
    "q_sample": (("x0", "eps"), lambda x0, eps: process.q_sample(S, x0, 3, eps)),
    "q_between": (("x_k", "eps"), lambda x_k, eps: process.q_between(S, x_k, 2, 5, eps)),
    "posterior_mean": (("x_t", "x0"), lambda x_t, x0: process.posterior_mean(S, x_t, x0, 3)),
    "posterior_mean_from_eps": (("x_t", "eps"), lambda x_t, eps: process.posterior_mean_from_eps(S, x_t, eps, 3)),
    **{
        f"{b}_from_{a}": (("x_t", a), lambda f=f, **a: f(S, a.pop("x_t"), 3, *a.values()))
        for (a, b), f in CONVERSIONS.items()
    },
    **{
        f"convert {a} to {a}": (
            ("x_t", "prediction"),
            lambda x_t, prediction, a=a: convert(S, x_t, 3, prediction, a, a),
        )
        for a in PREDICTIONS
    },
    **{
        f"target {kind}": (("x0", "eps"), lambda x0, eps, kind=kind: target(S, kind, x0, eps, 3))
        for kind in PREDICTIONS
    },
    "predictor": (("x_t", "prediction"), lambda x_t, prediction: predictor(S, lambda x, t: prediction)(x_t, 3)),
    "predictor's v": (("x_t", "v"), lambda x_t, v: predictor(S, lambda x, t: (x, v))(x_t, 3)),
    "predictor's clip": (
        ("x_t", "x0"),
        lambda x_t, x0: predictor(S, lambda x, t: x_t, "x0", lambda _: x0)(x_t, 3),
    ),
    "l_simple": (("target", "prediction"), lambda target, prediction: l_simple(prediction, target)),
    "l_weighted": (("target", "prediction"), lambda target, prediction: l_weighted(prediction, target, 0.5)),
    "classifier_guidance": (
        ("x_t", "prediction", "dlog_p"),
        lambda x_t, prediction, dlog_p: classifier_guidance(S, x_t, 3, prediction, dlog_p),
    ),
    "classifier_free_guidance": (
        ("unconditional", "conditional"),
        lambda unconditional, conditional: classifier_free_guidance(conditional, unconditional, 2.0),
    ),
    "rescaled_guidance": (
        ("conditional", "guided"),
        lambda conditional, guided: process.rescaled_guidance(conditional, guided, 0.7),
    ),
    "classifier_shift": (
        ("x_t", "gradient"),
        lambda x_t, gradient: classifier_shift(lambda x, t: gradient)(x_t, 3, x_t, 0.5),
    ),
    "kl_gaussian": (("mean", "log_variance", "other_mean", "other_log_variance"), process.kl_gaussian),
    "kl_gaussian_backward": (
        ("kl", "dkl"),
        lambda kl, dkl: process.kl_gaussian_backward(dkl, process.kl_gaussian(kl, kl, kl, kl)[1]),
    ),
    "decoder_log_likelihood": (
        ("x0", "mean", "log_variance"),
        lambda x0, mean, log_variance: process.decoder_log_likelihood(x0, mean, log_variance, None),
    ),
    "decoder_log_likelihood_backward": (
        ("log_likelihood", "dlog"),
        lambda log_likelihood, dlog: process.decoder_log_likelihood_backward(dlog, (log_likelihood, log_likelihood)),
    ),
    "l_vlb_term": (
        ("x0", "x_t", "mean", "log_variance"),
        lambda x0, x_t, mean, log_variance: l_vlb_term(S, x0, x_t, 3, mean, log_variance, None),
    ),
    "learned_log_variance_backward": (
        ("v", "dlog_variance"),
        lambda v, dlog_variance: process.learned_log_variance_backward(
            dlog_variance, process.learned_log_variance(S, v, 3)[1]
        ),
    ),
    "bound_terms": (("x0", "eps"), lambda x0, eps: bound_terms(S, lambda x, t: (x, x), x0, lambda t: eps, None)),
    "bound_terms' reverse": (
        ("x0", "mean", "log_variance"),
        lambda x0, mean, log_variance: bound_terms(S, lambda x, t: (mean, log_variance), x0, lambda t: x0, None),
    ),
    "joint_ratio": (
        ("prior", "forward_1", "reverse_2"),
        lambda prior, forward_1, reverse_2: process.joint_ratio([forward_1, prior], [prior, reverse_2], prior),
    ),
    "consistency_terms": (
        ("prior", "forward_1", "reverse_2"),
        lambda prior, forward_1, reverse_2: process.consistency_terms([forward_1, prior], [prior, reverse_2], prior),
    ),
    "denoising_terms": (
        ("prior", "reverse_2", "posterior_1", "marginal"),
        lambda prior, reverse_2, posterior_1, marginal: process.denoising_terms(
            [posterior_1], [prior, reverse_2], marginal, prior
        ),
    ),
    "gaussian_log_density": (("x", "mean", "log_variance"), process.gaussian_log_density),
    "path_densities": (
        ("x_0", "x_1", "x_10"),
        lambda x_0, x_1, x_10: process.path_densities(S, lambda x, t: (x, x), [x_0, x_1, *[x_0] * 8, x_10]),
    ),
    "path_densities' reverse": (
        ("x_0", "mean", "log_variance"),
        lambda x_0, mean, log_variance: process.path_densities(S, lambda x, t: (mean, log_variance), [x_0] * 11),
    ),
    "l_hybrid": (
        ("x0", "eps"),
        lambda x0, eps: l_hybrid(S, "eps", x0, eps, 3, twice(x0), bins=None),
    ),
    "fixed_reverse": (("x_t", "x0"), lambda x_t, x0: fixed_reverse(S, lambda x, t: (x0, x0))(x_t, 3)),
    "ancestral_step": (("x", "x0_hat", "eps"), lambda x, x0_hat, eps: process.ancestral_step(S, x, 3, 2, x0_hat, eps)),
    "learned_reverse": (
        ("x_t", "prediction"),
        lambda x_t, prediction: learned_reverse(S, lambda x, t: (prediction, x))(x_t, 3),
    ),
    "learned_reverse's v": (("x_t", "v"), lambda x_t, v: learned_reverse(S, lambda x, t: (x, v))(x_t, 3)),
    "ancestral_step's v": (("x", "v"), lambda x, v: process.ancestral_step(S, x, 3, 2, x, x, "learned", v=v)),
    "ancestral's v": (
        ("x", "v"),
        lambda x, v: list(process.ancestral(S, lambda *_: (x, x, v), x, [2, 5], lambda t: x, "learned")),
    ),
    "ancestral_step's shift": (
        ("x", "shift"),
        lambda x, shift: process.ancestral_step(S, x, 3, 2, x, x, shift=lambda *_: shift),
    ),
    "ddim_step": (
        ("x", "x0_hat", "eps_hat", "eps"),
        lambda x, x0_hat, eps_hat, eps: process.ddim_step(S, x, 3, 2, x0_hat, eps_hat, 0.5, eps),
    ),
    "ancestral": (
        ("x", "x0_hat", "eps"),
        lambda x, x0_hat, eps: list(process.ancestral(S, lambda *_: (x0_hat, x), x, [2, 5], lambda t: eps)),
    ),
    "ddim": run(process.ddim, "x0_hat", "eps_hat"),
    "euler_ancestral": run(process.euler_ancestral, "x0_hat", "eps_hat", "noise"),
    "euler": run(process.euler, "x0_hat", "eps_hat"),
    "heun": run(process.heun, "x0_hat", "eps_hat"),
    "heun's second": late(process.heun, "x0_hat"),
    "heun's second eps": late(process.heun, "eps_hat"),
    "dpmpp_2m": run(process.dpmpp_2m, "x0_hat"),
    "dpmpp_2s": run(process.dpmpp_2s, "x0_hat"),
    "dpmpp_2s's only": (
        ("x", "x0_hat"),
        lambda x, x0_hat: list(process.dpmpp_2s(S, lambda *_: (x0_hat, x), x, [5])),
    ),
    "dpmpp_2s's second": late(process.dpmpp_2s, "x0_hat"),
    "ddim_inversion": run(process.ddim_inversion, "eps_hat"),
    "q_sample_at": (("x0", "eps"), lambda x0, eps: process.q_sample_at(CONTINUOUS, x0, 0.3, eps)),
    "variational_step": (
        ("z", "eps_hat", "eps"),
        lambda z, eps_hat, eps: process.variational_step(CONTINUOUS, z, 0.7, 0.3, eps_hat, eps),
    ),
    "diffusion_loss": (
        ("eps", "eps_hat"),
        lambda eps, eps_hat: process.diffusion_loss(CONTINUOUS, 0.3, eps, eps_hat),
    ),
    "discrete_diffusion_loss": (
        ("eps", "eps_hat"),
        lambda eps, eps_hat: process.discrete_diffusion_loss(CONTINUOUS, 3, 5, eps, eps_hat),
    ),
    "reconstruction_loss": (
        ("x0", "eps"),
        lambda x0, eps: process.reconstruction_loss(CONTINUOUS, namespace(x0).round(2 * x0) / 2, eps, 5),
    ),
    "draw_bits": (("p", "uniform"), process.draw_bits),
    "binomial_posterior": (
        ("x_t", "x0"),
        lambda x_t, x0: process.binomial_posterior(S, bits(x_t), bits(x0), 3),
    ),
    "kl_binomial": (("p", "logits"), lambda p, logits: process.kl_binomial(bits(p), logits)),
    "binomial_term": (
        ("x0", "x_t", "logits"),
        lambda x0, x_t, logits: process.binomial_term(S, bits(x0), bits(x_t), 3, logits),
    ),
    "binomial_bound_terms": (
        ("x0", "uniform", "logits"),
        lambda x0, uniform, logits: process.binomial_bound_terms(
            S, lambda x, t: logits, bits(x0), lambda t: abs(uniform)
        ),
    ),
    "binomial_ancestral": (
        ("x", "logits", "uniform"),
        lambda x, logits, uniform: list(
            process.binomial_ancestral(S, lambda x, t: logits, bits(x), lambda t: abs(uniform))
        ),
    ),
    "multiplied_gaussian": (("mean", "log_variance", "dlog_r"), process.multiplied_gaussian),
    "multiplied_binomial": (("logits", "log_r_1", "log_r_0"), process.multiplied_binomial),
    "observed_gaussian": (
        ("mean", "log_variance", "y"),
        lambda mean, log_variance, y: process.observed_gaussian(mean, log_variance, y, 0.5),
    ),
    "observed_bits": (("logits", "y"), lambda logits, y: process.observed_bits(logits, bits(y), 0.1)),
    "conditioned": (("x", "known", "mask"), lambda x, known, mask: process.conditioned(x, known, bits(mask))),
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_one_shape_pass_and_others_are_named_with_their_shapes(name):
    names, call = CALLS[name]
    right = dict(zip(names, draws(len(names)), strict=True))
    call(**right)
    for i, wrong in ((i, wrong) for i in range(len(names)) for wrong in WRONG):
        given = right | {names[i]: np.full(wrong, 0.25)}
        expected, got = (wrong, SHAPE) if i == 0 else (SHAPE, wrong)
        other = names[max(i, 1)]
        with pytest.raises(ValueError, match="nothing is broadcast") as error:
            call(**given)
        message = f"{other}: expected the shape {expected} of {names[0]}, got {got}; nothing is broadcast"
        # Where the first is wrong, which of the others is looked at first is no matter.
        assert str(error.value) == message or (
            i == 0 and f"shape {expected} of {names[0]}, got {got}" in str(error.value)
        )


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_other_libraries_are_held_to_it_too(library, name):
    xp = library
    names, call = CALLS[name]
    right = {key: xp.asarray(a) for key, a in zip(names, draws(len(names)), strict=True)}
    call(**right)
    with pytest.raises(ValueError, match=re.escape("got (1, 3, 2, 1); nothing is broadcast")):
        call(**right | {names[-1]: xp.ones((1, 3, 2, 1), dtype=xp.float64)})


def test_what_is_no_array_is_no_constant_either():
    for eps in (0.5, 1, None, [0.5]):
        with pytest.raises(ValueError, match=r"eps: expected an array \(NumPy, .*\), got .*; use numpy.asarray"):
            process.q_sample(S, draws(1)[0], 3, eps)


def test_numbers_without_axes_are_arrays_of_one_shape():
    assert process.q_sample(S, np.array(0.5), 3, np.float64(0.25)).shape == ()


def test_what_is_one_number_a_sample_or_one_for_all_is_meant_to_be():
    x, y = draws(2)
    t = np.array([1, 5, 10, 3])
    assert process.q_sample(S, x, t, y).shape == SHAPE
    assert np.shape(l_weighted(x, y, np.arange(4) / 7)[0]) == ()
    assert classifier_guidance(S, x, t, y, x, 2.0).shape == SHAPE


@pytest.mark.parametrize("backward", [l_simple_backward, l_weighted_backward])
def test_a_loss_has_one_gradient(backward):
    x, _ = draws(2)
    saved = x if backward is l_simple_backward else (x, 0.5)
    for dloss in (1.0, np.float64(1.0), np.array(1.0)):
        assert backward(dloss, saved).shape == SHAPE
    with pytest.raises(
        ValueError, match=r"dloss: expected a single number, got shape \(4, 1, 1, 1\); nothing is broad"
    ):
        backward(np.ones((4, 1, 1, 1)), saved)


def test_a_term_of_the_bound_has_one_gradient_a_sample():
    x, y = draws(2)
    for t in (1, 3, np.array([1, 5, 10, 3])):
        _, saved = l_vlb_term(S, x, y, t, x, y, None)
        assert [g.shape for g in process.l_vlb_term_backward(np.ones(4), saved)] == [SHAPE, SHAPE]
        with pytest.raises(ValueError, match=r"dterm: expected one number a sample \(4,\), got \(1,\)"):
            process.l_vlb_term_backward(np.ones(1), saved)


def test_outputs_of_twice_the_channels_say_so():
    x, _ = draws(2)
    with pytest.raises(ValueError, match=r"output: expected prediction and v .* \(4, 3, 2, 2\), got \(4, 3, 2, 1\)"):
        learned_reverse(S, lambda x, t: x)(x, 3)
    with pytest.raises(ValueError, match=r"output: expected prediction and v .* \(4, 3, 2, 2\), got \(4, 3, 2, 1\)"):
        l_hybrid(S, "eps", x, x, 3, x)


# What takes arrays, or makes functions that do, and is not in the table: tested above, or where it says.
ELSEWHERE = {
    "GaussianMixture": "points (N, D) of its own dimension, test_exact",
    "flow_log_likelihood": "its probes have an axis more, its predictions are asked in test_ode_likelihood",
    "l_simple_backward": "one dloss", "l_weighted_backward": "one dloss", "l_vlb_term_backward": "one dterm a sample",
    "l_hybrid_backward": "one dloss",
    "final": "no arrays of its own", "predictor": "in the table",
}  # fmt: skip


def test_every_public_function_of_several_arrays_is_in_the_table():
    known = {re.split(r"[ ']", name)[0] for name in CALLS} | set(ELSEWHERE)
    several = []
    for name in (name for name in dir(process) if not name.startswith("_")):
        function = getattr(process, name)
        if not inspect.isfunction(function):
            continue
        kinds = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
        arrays = sum("Array" in kind or kind in ("Predict", "Noise", "ReverseStep", "Any") for kind in kinds)
        if arrays > 1 or (arrays and any("Callable" in kind and "Array" in kind for kind in kinds)):
            several.append(name)
    assert len(several) > 40
    assert sorted(set(several) - known) == []
    assert sorted(name for name in known if not hasattr(process, name)) == []


INTEGERS = "{}: expected floating-point numbers, got int64"
HALF = "{}: expected float32 or float64, got float16"
ONES, INTS, HALVES = np.ones((2, 3)) / 3, np.ones((2, 3), int), np.ones((2, 3), np.float16) / 3
T, NOTHING = np.array([1, 2]), process.from_beta([0.5, 1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: process.q_sample(S, ONES, T, INTS), INTEGERS.format("eps")),
        (lambda: process.target(S, "v", ONES, INTS, T), INTEGERS.format("eps")),
        (lambda: process.target(S, "v", INTS, ONES, T), INTEGERS.format("x0")),
        (lambda: process.classifier_guidance(S, ONES, T, ONES, INTS), INTEGERS.format("dlog_p")),
        (lambda: process.posterior_mean_from_eps(S, INTS, ONES, T), INTEGERS.format("x_t")),
        (lambda: process.kl_gaussian(ONES, HALVES, ONES, ONES), HALF.format("log_variance")),
        (lambda: process.kl_gaussian(ONES, ONES, ONES, HALVES), HALF.format("other_log_variance")),
        (lambda: process.decoder_log_likelihood(ONES, ONES, HALVES, None), HALF.format("log_variance")),
        (lambda: process.prior_matching(S, HALVES), HALF.format("x0")),
        (
            lambda: process.classifier_guidance(S, ONES, T, ONES[:1], ONES),
            r"prediction: expected the shape \(2, 3\) of x_t",
        ),
    ],
)
def test_the_array_that_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: process.x0_from_eps(NOTHING, ONES, 2, ONES), ("eps", "x0")),
        (lambda: process.x0_from_score(NOTHING, ONES, 2, ONES), ("the score", "x0")),
        (lambda: process.v_from_eps(NOTHING, ONES, 2, ONES), ("eps", "v")),
        (lambda: process.v_from_score(NOTHING, ONES, 2, ONES), ("the score", "v")),
        (lambda: process.mu_from_eps(NOTHING, ONES, 2, ONES), ("eps", "the posterior's mean")),
        (lambda: process.mu_from_score(NOTHING, ONES, 2, ONES), ("the score", "the posterior's mean")),
        (lambda: process.posterior_mean_from_eps(NOTHING, ONES, ONES, 2), ("eps", "the posterior's mean")),
    ],
)
def test_what_cannot_be_told_where_nothing_is_left_is_named(call, names):
    source, target = names
    message = f"^t: expected steps with alpha_bar > 0, got t = 2, where it is 0 and {source} says nothing of {target}; "
    with pytest.raises(ValueError, match=f"{message}predict v, or leave that step out$"):
        call()


@pytest.mark.parametrize("name", CALLS)
def test_integers_are_refused_by_the_name_of_the_argument(name):
    names, call = CALLS[name]
    try:
        call(**{key: np.ones(SHAPE, int) for key in names})
    except ValueError as error:
        argument = re.match("([a-z0-9_]+): expected f", str(error))[1]
        assert argument in {*names, *inspect.signature(getattr(process, re.split(r"[ ']", name)[0])).parameters, "x_t"}
        if len(names) == 2 and argument not in names:
            pytest.fail(f"{argument} is none of {names}")


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_two_libraries_are_refused_by_both_their_names(library, name):
    names, call = CALLS[name]
    right = dict(zip(names, draws(len(names)), strict=True))
    theirs = names[-1]
    with pytest.raises(
        ValueError, match=rf"^{theirs}: expected an array of numpy, as {names[0]} is, got one of [a-z_]+; "
    ):
        call(**right | {theirs: library.asarray(right[theirs])})
    with pytest.raises(
        ValueError, match=rf": expected an array of [a-z_]+, as {names[0]} is, got one of numpy; convert"
    ):
        call(**{key: library.asarray(a) for key, a in right.items()} | {theirs: right[theirs]})
