"""The reverse step of a model, as mean and log variance: of a variance that is fixed, and of one that is learned."""

import numpy as np

from refdiff.process import (
    convert,
    dynamic_threshold,
    fixed_reverse,
    learned_log_variance,
    learned_reverse,
    linear,
    posterior_log_variance,
    posterior_mean,
    predictor,
    step_log_variance,
)


def test_a_model_that_learns_variances_is_a_reverse_step():
    schedule, rng = linear(10), np.random.default_rng(4)
    x = rng.standard_normal((3, 2, 2))

    def model(x_t, t):
        return np.concatenate([0.5 * x_t, np.tanh(x_t)], axis=-1)

    for t in (1, 7, np.array([1, 4, 10])):
        mean, log_variance = learned_reverse(schedule, model)(x, t)
        assert np.allclose(mean, convert(schedule, x, t, 0.5 * x, "eps", "mu"), rtol=1e-12, atol=1e-12)
        assert np.array_equal(log_variance, learned_log_variance(schedule, np.tanh(x), t)[0])
        mean, _ = learned_reverse(schedule, model, "x0", (-0.1, 0.2))(x, t)
        assert np.array_equal(mean, posterior_mean(schedule, x, np.clip(0.5 * x, -0.1, 0.2), t))

    def hears(x_t, t):
        return np.concatenate([x_t * np.reshape(t, (-1, 1, 1)), x_t], axis=-1)

    mean, _ = learned_reverse(schedule, hears, "x0")(x, np.array([1, 4, 10]))
    assert np.array_equal(
        mean, posterior_mean(schedule, x, x * np.array([1, 4, 10])[:, None, None], np.array([1, 4, 10]))
    )


def test_a_fixed_reverse_step_takes_the_smaller_variance_unless_told():
    schedule, x = linear(10), np.ones((2, 3)) / 3
    predict = predictor(schedule, lambda x, t: 0.2 * x, "x0")
    mean, log_variance = fixed_reverse(schedule, predict)(x, 5)
    assert np.array_equal(mean, posterior_mean(schedule, x, 0.2 * x, 5))
    assert np.all(log_variance == posterior_log_variance(schedule, 5))
    assert np.all(fixed_reverse(schedule, predict, step_log_variance)(x, 5)[1] == step_log_variance(schedule, 5))


def test_prediction_and_v_in_two_are_what_they_are_side_by_side():
    schedule, x = linear(10), np.random.default_rng(5).standard_normal((3, 2, 2))
    for clip in (None, (-0.1, 0.2), dynamic_threshold):
        for kind in ("eps", "v"):
            pair = learned_reverse(schedule, lambda x, t: (3 * x, np.tanh(x)), kind, clip)(x, 4)
            beside = learned_reverse(schedule, lambda x, t: np.concatenate([3 * x, np.tanh(x)], axis=-1), kind, clip)(
                x, 4
            )
            assert [a.tobytes() for a in pair] == [a.tobytes() for a in beside]
            listed = learned_reverse(schedule, lambda x, t: [3 * x, np.tanh(x)], kind, clip)(x, 4)
            assert [a.tobytes() for a in listed] == [a.tobytes() for a in beside]
    x0_hat, _ = predictor(schedule, lambda x, t: 3 * x, "v", dynamic_threshold)(x, 4)
    assert np.array_equal(pair[0], posterior_mean(schedule, x, x0_hat, 4))


def test_a_fixed_reverse_step_ignores_v():
    schedule, x = linear(10), np.ones((2, 3)) / 3
    said, plain = (predictor(schedule, model, "x0") for model in (lambda x, t: (0.2 * x, 9 * x), lambda x, t: 0.2 * x))
    assert [a.tobytes() for a in fixed_reverse(schedule, said)(x, 5)] == [
        a.tobytes() for a in fixed_reverse(schedule, plain)(x, 5)
    ]
