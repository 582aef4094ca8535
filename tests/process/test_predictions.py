"""Every conversion against 50 digits solved from the definitions, against every way round, and the samplers' predictor."""

import mpmath
import numpy as np
import pytest
from helpers import exact
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.linalg import norm

from refdiff import process
from refdiff.process import CONVERSIONS, PREDICTIONS, convert, from_beta, linear, predictor
from refdiff.testing.strategies import schedules, seeds, shapes, steps

mpmath.mp.dps = 50


def definitions(schedule, t):
    """Each kind of prediction as c_x x_t + c_0 x_0 + c_e eps, in 50 digits; and a, s of x_t = a x_0 + s eps.

    The score is the gradient of -(x_t - a x_0)^2 / 2 s^2; mu maximises q(x_t|x_{t-1}) q(x_{t-1}|x_0), Bayes' rule.
    """
    beta = exact(schedule.beta)
    # 1 - beta; where beta is near 1, alpha as it is, of which a respaced schedule has more digits.
    alpha = np.where(schedule.beta > 0.5, exact(schedule.alpha), 1 - beta)
    before = mpmath.fprod(alpha[:t])
    a2, alpha, beta = before * alpha[t], alpha[t], 1 - alpha[t]
    a, s2 = mpmath.sqrt(a2), 1 - a2
    s = mpmath.sqrt(s2)
    precision = alpha / beta * (1 - before) + 1  # of the two Gaussians in x_{t-1} together, times 1 - before
    forms = {
        "eps": (0, 0, 1),
        "x0": (0, 1, 0),
        "v": (0, -s, a),
        "score": (-1 / s2, a / s2, 0),
        "mu": (mpmath.sqrt(alpha) / beta * (1 - before) / precision, mpmath.sqrt(before) / precision, 0),
    }
    return forms, a, s


def factors(schedule, t, source, target):
    """The factors of x_t and of the prediction: x_0 and eps from Cramer's rule, then the target's definition."""
    forms, a, s = definitions(schedule, t)
    of_x, of_x0, of_eps = forms[source]
    determinant = of_x0 * s - of_eps * a
    result = []
    for x, prediction in ((1, 0), (0, 1)):
        rest = prediction - of_x * x
        x0, eps = (rest * s - of_eps * x) / determinant, (of_x0 * x - a * rest) / determinant
        result.append(sum(c * value for c, value in zip(forms[target], (x, x0, eps), strict=True)))
    return result


def magnitude(schedule, t, source, target, x, prediction):
    """|A| ||x_t|| + |B| ||prediction|| of the map A x_t + B prediction: what 1e-14 of a sum of terms is measured by."""
    zero, one = np.zeros(1), np.ones(1)
    of_x, of_prediction = (convert(schedule, *v, source, target) for v in ((one, t, zero), (zero, t, one)))
    return abs(of_x.item()) * x + abs(of_prediction.item()) * prediction


@pytest.mark.parametrize(("source", "target"), sorted(CONVERSIONS))
@given(schedules(max_T=200, terminal=True), seeds(), st.data())
def test_each_conversion_is_what_the_definitions_say_in_50_digits(source, target, schedule, seed, data):
    t = data.draw(steps(schedule))
    assume(schedule.alpha_bar[t] > 0 or source not in ("eps", "score"))
    x, prediction = np.random.default_rng(seed).standard_normal((2, 4))
    of_x, of_prediction = factors(schedule, t, source, target)
    terms = abs(of_x) * norm(x) + abs(of_prediction) * norm(prediction)
    expected = of_x * exact(x) + of_prediction * exact(prediction)
    actual = convert(schedule, x, t, prediction, source, target)
    assert mpmath.norm(exact(actual) - expected) <= 1e-14 * terms
    many = CONVERSIONS[source, target](schedule, x, np.full(4, t), prediction)
    assert mpmath.norm(exact(many) - expected) <= 1e-14 * terms


@pytest.mark.parametrize("source", PREDICTIONS)
@given(schedules(), shapes(), seeds(), st.data())
def test_going_back_or_through_a_third_kind_agrees(source, schedule, shape, seed, data):
    t = data.draw(steps(schedule))
    x, prediction = np.random.default_rng(seed).standard_normal((2, *shape))
    for middle in PREDICTIONS:
        there = convert(schedule, x, t, prediction, source, middle)
        # Each conversion errs by some roundings of its two terms; the second carries on the first one's error.
        first = magnitude(schedule, t, source, middle, norm(x), norm(prediction))
        for target in PREDICTIONS:
            direct = convert(schedule, x, t, prediction, source, target)
            through = convert(schedule, x, t, there, middle, target)
            terms = magnitude(schedule, t, middle, target, norm(x), first)
            terms += magnitude(schedule, t, source, target, norm(x), norm(prediction))
            assert norm(through - direct) <= 1e-14 * terms


@pytest.mark.parametrize("source", ["eps", "score"])
@pytest.mark.parametrize("target", ["x0", "mu", "v"])
def test_pure_noise_tells_nothing_of_the_data_and_does_not_pretend_to(source, target):
    schedule = from_beta([0.1, 0.2, 1.0])
    x, prediction = np.random.default_rng(0).standard_normal((2, 4))
    named = "eps" if source == "eps" else "the score"
    message = (
        rf"t: expected steps with alpha_bar > 0, got t = 3, where it is 0 and {named} says nothing of .*; predict v"
    )
    for t in (3, np.array([1, 3, 2, 1])):
        with pytest.raises(ValueError, match=message):
            convert(schedule, x, t, prediction, source, target)
    assert np.isfinite(convert(schedule, x, 2, prediction, source, target)).all()
    assert np.array_equal(
        convert(schedule, x, 3, prediction, source, "score" if source == "eps" else "eps"), -prediction
    )


def test_there_is_a_public_function_for_each_ordered_pair_of_kinds():
    assert sorted(CONVERSIONS) == sorted((a, b) for a in PREDICTIONS for b in PREDICTIONS if a != b)
    assert len(CONVERSIONS) == 20
    for (source, target), function in CONVERSIONS.items():
        assert function is getattr(process, f"{target}_from_{source}")
        assert function.__name__ in process.predictions.__all__


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_prediction_of_the_wanted_kind_is_returned_as_it_is(kind):
    x, prediction = np.random.default_rng(0).standard_normal((2, 4))
    assert convert(linear(), x, 3, prediction, kind, kind) is prediction


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize(("source", "target"), sorted(CONVERSIONS))
@given(schedules(), shapes(), seeds(), st.data())
def test_a_step_a_sample_mixes_the_results_of_each_and_keeps_the_dtype(
    source, target, dtype, schedule, shape, seed, data
):
    x, prediction = np.random.default_rng(seed).standard_normal((2, *shape)).astype(dtype)
    if dtype is np.complex128:
        x, prediction = x + 0.3j * prediction, prediction - 0.7j * x
    t = np.array([data.draw(steps(schedule)) for _ in range(shape[0])])
    x.flags.writeable = prediction.flags.writeable = False
    mixed = convert(schedule, x, t, prediction, source, target)
    assert mixed.dtype == dtype
    assert mixed.shape == shape
    for i, t_i in enumerate(t.tolist()):
        alone = convert(schedule, x[i : i + 1], t_i, prediction[i : i + 1], source, target)
        assert alone.dtype == dtype
        terms = magnitude(schedule, t_i, source, target, norm(x[i]), norm(prediction[i]))
        assert norm(mixed[i] - alone[0]) <= 8 * np.finfo(dtype).eps * terms


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(schedules(), shapes(), seeds(), st.booleans(), st.data())
def test_a_clipped_predictor_stays_in_range_and_explains_x(kind, dtype, schedule, shape, seed, mixed, data):
    x, prediction = np.random.default_rng(seed).standard_normal((2, *shape)).astype(dtype)
    t = np.array([data.draw(steps(schedule)) for _ in range(shape[0])]) if mixed else data.draw(steps(schedule))
    x0_hat, eps_hat = predictor(schedule, lambda x_t, t: prediction, kind, clip_x0=(-1, 0.5))(x, t)
    assert x0_hat.dtype == eps_hat.dtype == dtype
    assert np.all((x0_hat >= -1) & (x0_hat <= 0.5))
    column = (-1, *[1] * (len(shape) - 1))
    a, s = np.sqrt(schedule.alpha_bar[t]).reshape(column), np.sqrt(schedule.one_minus_alpha_bar[t]).reshape(column)
    assert norm(a * x0_hat + s * eps_hat - x) <= 4 * np.finfo(dtype).eps * (norm(a * x0_hat) + norm(s * eps_hat))
    free = convert(schedule, x, t, prediction, kind, "x0")
    assert np.array_equal(x0_hat, np.minimum(np.maximum(free, -1), 0.5).astype(dtype))


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(schedules(), shapes(), seeds(), st.data())
def test_a_predictor_without_clip_converts(kind, schedule, shape, seed, data):
    t = data.draw(steps(schedule))
    x, weight = np.random.default_rng(seed).standard_normal((2, *shape))
    asked = []

    def model(x_t, t):
        asked.append((x_t, t))
        return weight * x_t

    x0_hat, eps_hat = predictor(schedule, model, kind)(x, t)
    assert np.array_equal(x0_hat, convert(schedule, x, t, weight * x, kind, "x0"))
    assert np.array_equal(eps_hat, convert(schedule, x, t, weight * x, kind, "eps"))
    assert len(asked) == 1
    assert asked[0][0] is x
    assert asked[0][1] == t


@pytest.mark.parametrize("clip", [(1, -1), (1, 1), (np.nan, 1)])
def test_a_range_turned_round_is_refused(clip):
    with pytest.raises(ValueError, match=r"clip_x0: expected \(low, high\) with low < high.* got"):
        predictor(linear(), lambda x, t: x, clip_x0=clip)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s, x: convert(s, x, 3, x, "epsilon", "x0"),
            "source: expected one of .*eps, x0, mu, v, score.*'epsilon'",
        ),
        (lambda s, x: convert(s, x, 3, x, "eps", "X0"), "target: expected one of .*eps, x0, mu, v, score.*'X0'"),
        (lambda s, x: predictor(s, lambda x, t: x, "noise")(x, 3), "source: expected one of"),
        (lambda s, x: convert(s, x, 0, x, "eps", "x0"), "t: expected integers from 1 to T = 10, got 0"),
        (lambda s, x: convert(s, x, 11, x, "eps", "x0"), "t: expected integers from 1 to T = 10, got 11"),
        (lambda s, x: convert(s, x, np.ones(2, int), x, "v", "x0"), "t: expected one step a sample"),
        (lambda s, x: convert(s, x.astype(int), 3, x, "eps", "v"), "expected floating-point numbers, got int64"),
    ],
)
def test_a_wrong_kind_time_or_array_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(linear(10), np.random.default_rng(0).standard_normal((3, 2)))
