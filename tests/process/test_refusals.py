"""What is no array, pair, single number or one number a sample is refused, in words that name the argument and shapes."""

import re

import numpy as np
import pytest

from refdiff import process
from refdiff.process import (
    bound_terms,
    classifier_free_guidance,
    classifier_guidance,
    classifier_shift,
    fixed_reverse,
    l_hybrid,
    l_simple_backward,
    l_vlb_term,
    l_weighted,
    learned_reverse,
    linear,
    predictor,
)

LAW, MIXTURE = linear(20), process.GaussianMixture([1.0], np.zeros((1, 2)), np.eye(2)[None])
FIELD, TWO = np.random.default_rng(7).uniform(-1, 1, (4, 2, 2, 1)), np.random.default_rng(8).standard_normal((4, 2))


def one_array(x, t):
    return x


def flow(prior=None, predict=lambda x, t: (x, x), x0=TWO, **more):
    return process.flow_log_likelihood(LAW, predict, x0, [5, 10, 20], prior=prior, tolerance=1e9, **more)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow(lambda x: np.zeros((4, 1))), "prior: expected the shape (4,) of the flow's part, got (4, 1); nothing"),
        (lambda: flow(lambda x: np.zeros(())), "prior: expected the shape (4,) of the flow's part, got (); nothing is"),
        (lambda: flow(lambda x: 0.0), "prior: expected an array (NumPy, CuPy, PyTorch, JAX), got float; use"),
        (lambda: flow(x0=[[0.5]]), "x0: expected an array (NumPy, CuPy, PyTorch, JAX), got list; use"),
        (lambda: flow(probes=[TWO]), "probes: expected an array (NumPy, CuPy, PyTorch, JAX), got list; use"),
        (
            lambda: process.learned_log_variance_backward(
                np.ones((1, 2, 2, 1)), process.learned_log_variance(LAW, FIELD, [1, 2, 3, 4])[1]
            ),
            "dlog_variance: expected the shape (4, 2, 2, 1) of v, got (1, 2, 2, 1); nothing is broadcast",
        ),
        (
            lambda: process.learned_log_variance_backward(
                np.ones((1, 2, 2, 1)), process.learned_log_variance(LAW, FIELD, 3)[1]
            ),
            "dlog_variance: expected the shape (4, 2, 2, 1) of v, got (1, 2, 2, 1); nothing is broadcast",
        ),
        (
            lambda: process.learned_log_variance_backward(1.0, process.learned_log_variance(LAW, FIELD, 3)[1]),
            "dlog_variance: expected an array (NumPy, CuPy, PyTorch, JAX), got float; use",
        ),
        *(
            (lambda f=f, scale=scale: f(scale), f"scale: expected a single number, got {got}; nothing is broadcast")
            for f in (
                lambda scale: classifier_free_guidance(FIELD, FIELD, scale),
                lambda scale: classifier_guidance(LAW, FIELD, 3, FIELD, FIELD, scale),
                lambda scale: classifier_shift(lambda x, t: x, scale),
            )
            for scale, got in (
                (np.ones(4), "shape (4,)"),
                (np.ones((4, 1, 1, 3)), "shape (4, 1, 1, 3)"),
                (np.ones(1), "shape (1,)"),
                ([2.0], "list"),
                (None, "NoneType"),
            )
        ),
        (lambda: l_simple_backward([1.0], FIELD), "dloss: expected a single number, got list; nothing is broadcast"),
        (
            lambda: list(process.ddim(LAW, lambda x, t: (x, x), TWO, [5], lambda t: TWO, np.full(1, 0.5))),
            "eta: expected a single number, got shape (1,); nothing is broadcast",
        ),
        (
            lambda: process.min_snr_weight(LAW, 5, gamma=np.ones(1)),
            "gamma: expected a single number, got shape (1,); nothing is broadcast",
        ),
        (
            lambda: process.p2_weight(LAW, 5, gamma=np.ones(1)),
            "gamma: expected a single number, got shape (1,); nothing is broadcast",
        ),
        (
            lambda: process.p2_weight(LAW, 5, k=np.ones(1)),
            "k: expected a single number, got shape (1,); nothing is broadcast",
        ),
        (
            lambda: process.dynamic_threshold(FIELD, np.full(4, 0.5)),
            "quantile: expected a single number, got shape (4,); nothing is broadcast",
        ),
        (
            lambda: l_hybrid(LAW, "eps", FIELD, FIELD, 3, np.concatenate([FIELD, FIELD], axis=-1), np.ones(4), None),
            "weight: expected a single number, got shape (4,); nothing is broadcast",
        ),
        (lambda: LAW.between([1], [5, 6, 7]), "k: expected one integer, or one for each of t (3,), got (1,)"),
        (lambda: LAW.between([1, 2], [5, 6, 7]), "k: expected one integer, or one for each of t (3,), got (2,)"),
        (lambda: LAW.between([1, 2, 3], [5]), "k: expected one integer, or one for each of t (1,), got (3,)"),
        *(
            (lambda f=f, s=s: f(LAW, [5, 6, 7], s), f"t_prev: expected one integer, or one for each of t (3,), got {got}")
            for f in (process.posterior_variance, process.step_variance, process.posterior_mean_coefficients)
            for s, got in (([1, 2], "(2,)"), ([1], "(1,)"))
        ),
        (
            lambda: process.posterior_mean_from_eps(LAW, TWO[:3], TWO[:3], [5, 6, 7], [1]),
            "t_prev: expected one integer, or one for each of t (3,), got (1,)",
        ),
        (
            lambda: process.q_between(LAW, TWO, [1, 2], [5, 6, 7], TWO),
            "k: expected one integer, or one for each of t (3,), got (2,)",
        ),
        *(
            (lambda f=f, t=t: f(LAW, TWO, t), f"t: expected one step a sample of x (4, 2), got {got}")
            for f in (MIXTURE.eps, MIXTURE.x0, MIXTURE.v, MIXTURE.score, MIXTURE.log_density, MIXTURE.x0_error)
            for t, got in (([1, 2, 3], "(3,)"), ([1], "(1,)"))
        ),
        *(
            (lambda clip=clip: predictor(LAW, one_array, "x0", clip), "clip_x0: expected (low, high) with low < high, or")
            for clip in (1.0, (1.0,), (-1, 0, 1), (1, -1), "ab", np.ones(()), np.zeros(2), (), {-1: 1, 1: 1})
        ),
        (
            lambda: predictor(LAW, one_array, "x0", (np.zeros(4), 1)),
            "clip_x0: expected a single number, got shape (4,); nothing is broadcast",
        ),
        (lambda: predictor(LAW, one_array, "x0", (None, 1)), "clip_x0: expected a single number, got NoneType; nothing"),
        *(
            (
                lambda f=f: list(f(LAW, one_array, TWO, [5, 9])),
                "predict: expected two arrays (x0_hat, eps_hat), as of `predictor`, got ndarray",
            )
            for f in (
                process.ddim, process.euler, process.heun, process.dpmpp_2m, process.dpmpp_2s, process.ddim_inversion,
                lambda *a: process.ancestral(*a, lambda t: TWO), lambda *a: process.euler_ancestral(*a, lambda t: TWO),
            )
        ),
        (lambda: flow(predict=one_array), "predict: expected two arrays (x0_hat, eps_hat), as of `predictor`, got nda"),
        (lambda: fixed_reverse(LAW, one_array)(TWO, 5), "predict: expected two arrays (x0_hat, eps_hat), as of `pred"),
        (
            lambda: list(process.ddim(LAW, lambda x, t: (x, x, x, x), TWO, [5])),
            "predict: expected two arrays (x0_hat, eps_hat), as of `predictor`, got 4 values",
        ),
        (
            lambda: list(process.ddim(LAW, lambda x, t: None, TWO, [5])),
            "predict: expected two arrays (x0_hat, eps_hat), as of `predictor`, got NoneType",
        ),
        (
            lambda: bound_terms(LAW, one_array, TWO, lambda t: TWO, None),
            "reverse: expected two arrays (mean, log variance), as of `fixed_reverse`, got ndarray",
        ),
        (
            lambda: learned_reverse(LAW, lambda x, t: None)(TWO, 5),
            "output: expected an array (NumPy, CuPy, PyTorch, JAX), got NoneType; use",
        ),
        (
            lambda: learned_reverse(LAW, lambda x, t: (x, None))(TWO, 5),
            "v: expected an array (NumPy, CuPy, PyTorch, JAX), got NoneType; use",
        ),
        *(
            (lambda f=f: f(LAW, lambda x, t: (x, x, x))(TWO, 5), "model: expected two arrays (prediction, v or None)")
            for f in (predictor, learned_reverse)
        ),
        (
            lambda: list(process.ancestral(LAW, predictor(LAW, one_array), TWO, [5, 9], lambda t: TWO, "learned")),
            'v: expected what the model says of the variance, because variance is "learned", got None; give a model that',
        ),
        (
            lambda: process.ancestral_step(LAW, TWO, 5, 2, TWO, TWO, "beta"),
            "variance: expected a function, such as posterior_variance, or \"learned\", got 'beta'",
        ),
        (
            lambda: l_weighted(FIELD, FIELD, np.ones(3)),
            "weight: expected one number a sample of target (4, 2, 2, 1), got (3,)",
        ),
        (
            lambda: l_weighted(FIELD, FIELD, np.ones((4, 1, 1, 1))),
            "weight: expected one number a sample of target (4, 2, 2, 1), got (4, 1, 1, 1)",
        ),
        (
            lambda: l_weighted(FIELD[:1], FIELD[:1], np.ones((1, 5))),
            "weight: expected one number a sample of target (1, 2, 2, 1), got (1, 5)",
        ),
        (lambda: process.q_moments(LAW, 0.5, 5), "x0: expected an array (NumPy, CuPy, PyTorch, JAX), got float; use"),
        (
            lambda: process.l_vlb_term_backward(1.0, l_vlb_term(LAW, TWO, TWO, 3, TWO, TWO, None)[1]),
            "dterm: expected an array (NumPy, CuPy, PyTorch, JAX), got float; use",
        ),
        *(
            (
                lambda t=t: l_vlb_term(LAW, TWO, TWO, t, TWO, TWO, None),
                f"t: expected one step a sample of x0 (4, 2), got ({len(t)},)",
            )
            for t in ([1, 1], [1], [3, 4], [1, 3, 5])
        ),
        (lambda: process.dynamic_threshold([0.5]), "x0_hat: expected an array (NumPy, CuPy, PyTorch, JAX), got list"),
        (lambda: process.prior_matching(LAW, 0.5), "x0: expected an array (NumPy, CuPy, PyTorch, JAX), got float; use"),
    ],
)  # fmt: skip
def test_no_shape_is_broadcast_and_no_message_leaves_the_argument_out(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_the_probes_of_the_flow_are_of_its_library(library):
    with pytest.raises(ValueError, match=r"^probes: expected an array of numpy, as x0 is, got one of [a-z_]+; convert"):
        flow(probes=library.ones((1, 4, 2), dtype=library.float64))


def test_single_numbers_of_any_kind_scale_and_each_step_may_have_its_own_start():
    for scale in (2, 2.0, np.float64(2), np.array(2.0)):
        assert np.array_equal(classifier_free_guidance(FIELD, 0 * FIELD, scale), 2 * FIELD)
    assert LAW.between(1, [5, 6])[0].shape == LAW.between([1, 2], 5)[0].shape == LAW.between([1, 2], [5, 6])[0].shape
    assert process.posterior_variance(LAW, 5, [1, 2]).tolist() == [
        process.posterior_variance(LAW, 5, s) for s in (1, 2)
    ]
    assert predictor(LAW, one_array, "x0", np.array([-1, 1]))(FIELD, 3)[0].shape == FIELD.shape
    assert process.final(process.ddim(LAW, lambda x, t: [x, x], FIELD, [5])).shape == FIELD.shape
