"""Bits per dimension: exact for Gaussian data, reproducible, honest about its error, and refused for the wrong data."""

import math

import networks
import numpy as np
import pytest

from refdiff.config import Config
from refdiff.data import load
from refdiff.evaluation.likelihood import estimate_bound, levels, nll, plot_nll, samples_a_step
from refdiff.process import (
    SCHEDULES,
    GaussianMixture,
    decoder_log_likelihood,
    fixed_large_log_variance,
    fixed_log_variance,
    fixed_reverse,
    l_vlb_term,
    linear,
    posterior_mean,
    posterior_variance,
    predictor,
    step_log_variance,
)

MEAN, VARIANCE = np.array([0.3, -0.8, 0.1]), np.array([0.05, 0.4, 1.5])


def perfect(schedule):
    """The true reverse process of data N(MEAN, diag VARIANCE): the perfect denoiser's mean and the right variances."""
    exact = GaussianMixture(np.ones(1), MEAN[None], np.diag(VARIANCE)[None])
    predict = predictor(schedule, lambda x, t: exact.eps(schedule, x, t))

    def reverse(x_t, t):
        mean = posterior_mean(schedule, x_t, predict(x_t, t)[0], t)
        before = schedule.alpha_bar[t - 1, None] * VARIANCE + schedule.one_minus_alpha_bar[t - 1, None]
        now = schedule.alpha[t, None] * before + schedule.beta[t, None]
        return mean, np.log(before * schedule.beta[t, None] / now)

    return reverse


def points(n, seed=0):
    return MEAN + np.sqrt(VARIANCE) * np.random.default_rng(seed).standard_normal((n, 3))


@pytest.mark.parametrize("T", [1, 10, 50])
def test_for_gaussian_data_and_the_true_reverse_process_it_is_minus_log_p(T):
    schedule, x = linear(T, 0.02, 0.3), points(2000)
    found = estimate_bound(schedule, perfect(schedule), x, per_step=400, bins=None, batch=5000)
    # -log p(x) of these very points, and E[log q(x_T) - log N(x_T; 0, I)] given them, which the bound has more.
    minus_log_p = 0.5 * ((x - MEAN) ** 2 / VARIANCE + np.log(2 * np.pi * VARIANCE)).mean()
    a, s2 = schedule.alpha_bar[T] ** 0.5, schedule.one_minus_alpha_bar[T]
    v = a**2 * VARIANCE + s2
    prior = 0.5 * ((a * x) ** 2 + s2 - ((a * (x - MEAN)) ** 2 + s2) / v - np.log(v)).mean()
    wanted = (minus_log_p + prior) / math.log(2)
    assert abs(found["bits_per_dim"] - wanted) <= 5 * found["bits_per_dim_error"]
    assert found["bits_per_dim_error"] < 0.05


def test_a_fixed_variance_costs_what_the_closed_form_says():
    # For the perfect denoiser and beta_t: E[L_{t-1}] from the variances alone, in one dimension after the other.
    schedule, x = linear(20, 0.02, 0.3), points(4000)
    exact = GaussianMixture(np.ones(1), MEAN[None], np.diag(VARIANCE)[None])
    predict = predictor(schedule, lambda x, t: exact.eps(schedule, x, t))
    found = estimate_bound(schedule, fixed_reverse(schedule, predict, step_log_variance), x, per_step=400, bins=None)
    t = np.arange(2, 21)[:, None]
    abar, s2, beta = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t], schedule.beta[t]
    of_x0 = schedule.alpha_bar[t - 1] * beta**2 / s2**2 * VARIANCE * s2 / (abar * VARIANCE + s2)
    tilde = beta * schedule.one_minus_alpha_bar[t - 1] / s2
    wanted = 0.5 * (tilde / beta - 1 - np.log(tilde / beta) + of_x0 / beta).mean(axis=1) / math.log(2)
    errors = np.array(found["term_errors"][1:-1])
    # The data are a sample: their own spread is wrong by 1/sqrt(8000) or so of a term's size.
    assert np.all(np.abs(np.array(found["terms"][1:-1]) - wanted) <= 5 * errors + 0.05 * wanted)


def test_the_parts_add_up_and_their_errors_in_squares():
    schedule = linear(10, 0.02, 0.3)
    found = estimate_bound(schedule, perfect(schedule), points(50), per_step=8, bins=None)
    assert len(found["terms"]) == len(found["term_errors"]) == 11
    assert found["bits_per_dim"] == pytest.approx(sum(found["terms"]), rel=1e-14)
    assert found["bits_per_dim"] == pytest.approx(
        found["reconstruction"] + found["denoising"] + found["prior"], rel=1e-13
    )
    assert found["terms"][0] == found["reconstruction"]
    assert found["terms"][-1] == found["prior"]
    assert found["bits_per_dim_error"] == pytest.approx(math.hypot(*found["term_errors"]), rel=1e-14)
    assert found["term_errors"][-1] == 0
    assert (found["dims"], found["nll_samples"], found["bins"]) == (3, 50, None)


def test_the_standard_error_is_that_of_repetitions():
    schedule, x = linear(5, 0.02, 0.3), points(500)
    reverse = perfect(schedule)
    runs = [estimate_bound(schedule, reverse, x, seed, per_step=10, bins=None) for seed in range(200)]
    spread = np.std([run["bits_per_dim"] for run in runs], ddof=1)
    claimed = np.sqrt(np.mean([run["bits_per_dim_error"] ** 2 for run in runs]))
    assert spread == pytest.approx(claimed, rel=0.2)


def test_the_first_steps_get_more_samples_and_all_together_what_was_asked():
    for T, per_step in ((1, 2), (10, 4), (1000, 16)):
        counts = samples_a_step(T, per_step)
        assert counts.shape == (T,)
        assert np.all(counts >= max(2, per_step / 2))
        assert np.all(np.diff(counts) <= 0)
        assert T * per_step <= counts.sum() <= T * (per_step + 1)
    assert samples_a_step(1000, 16)[0] > 1000
    schedule = linear(10, 0.02, 0.3)
    found = estimate_bound(schedule, perfect(schedule), points(50), per_step=8, bins=None)
    assert found["counts"] == samples_a_step(10, 8).tolist()


def test_each_term_and_its_error_are_the_mean_and_its_standard_error():
    # A model whose terms are known numbers, drawn for each sample: mean 0, log variance of its own.
    schedule, x, seen = linear(6, 0.02, 0.3), points(50), []

    def reverse(x_t, t):
        seen.append((t, x_t))
        return np.zeros_like(x_t), np.zeros_like(x_t)

    found = estimate_bound(schedule, reverse, x, per_step=10, bins=None, batch=1000)
    ((t, x_t),) = seen
    first = estimate_bound(schedule, reverse, x[:1], per_step=10, bins=None, batch=1000)  # always the same x_0
    assert found["counts"] == np.bincount(t)[1:].tolist() == first["counts"]
    assert first["terms"][0] == pytest.approx(((x[0] ** 2).mean() / 2 + 0.5 * math.log(2 * math.pi)) / math.log(2))
    assert first["term_errors"][0] == pytest.approx(0, abs=1e-12)
    t, x_t = seen[1]
    x_t = x_t[t == 4]
    mean = posterior_mean(schedule, x_t, np.repeat(x[:1], len(x_t), axis=0), 4)
    variance = posterior_variance(schedule, 4)
    terms = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean(axis=1) / math.log(2)
    assert first["terms"][3] == pytest.approx(terms.mean(), rel=1e-12)
    assert first["term_errors"][3] == pytest.approx(terms.std(ddof=1) / math.sqrt(len(terms)), rel=1e-12)


def test_the_result_depends_on_the_seed_and_not_on_the_batch():
    schedule, x = linear(7, 0.02, 0.3), points(40)
    reverse = perfect(schedule)
    one, same, other = (
        estimate_bound(schedule, reverse, x, seed, 6, None, batch) for seed, batch in ((3, 42), (3, 5), (4, 42))
    )
    assert np.allclose(one["terms"], same["terms"], rtol=1e-13, atol=1e-13)
    assert one["terms"][:-1] != other["terms"][:-1]
    assert one["prior"] == other["prior"]


@pytest.fixture
def few():
    """The digits with a network of width 8 and ten steps of noise."""
    return Config.resolve(
        "digits",
        changes=[
            "model.width=8",
            "model.groups=8",
            "schedule.T=10",
            "schedule.options={beta_end=0.5}",
            "sample.steps=4",
        ],
    )


def test_an_untrained_model_of_the_digits_is_worse_than_no_model(few):
    # Without any model 17 levels take log2 17 = 4.09 bits.
    data, model = load("digits"), networks.trained(few)
    found = nll(model, data.held_out[:50], per_step=4, progress=False)
    assert found["bins"] == 17
    assert found["dims"] == 64
    assert found["nll_samples"] == 50
    assert found["variance"] == "posterior"
    assert found["bits_per_dim"] > 4.09
    assert all(term >= 0 for term in found["terms"])
    larger = nll(model, data.held_out[:50], per_step=4, variance="beta", progress=False)
    assert larger["variance"] == "beta"
    assert larger["terms"] != found["terms"]
    assert (
        nll(networks.trained(few.changed(["sample.variance=beta"])), data.held_out[:50], per_step=4, progress=False)
        == larger
    )


def test_the_first_term_is_the_decoders(few):
    # An untrained network predicts eps = 0: x0_hat is x_1 / sqrt(alpha_bar_1), held in range if the configuration says so.
    x = load("digits").held_out[:20]
    for clip in (True, False):
        options = "schedule.options={beta_start=0.1, beta_end=0.5}"
        config = few.changed([f"sample.threshold={'static' if clip else 'none'}", options])
        found = nll(
            networks.trained(config), x, per_step=300, variance="beta", first_variance="refdiff", progress=False
        )
        schedule, rng = config.schedule.build(), np.random.default_rng(0)
        x0 = np.repeat(x, 40, axis=0).astype(np.float64)
        x1 = np.sqrt(schedule.alpha_bar[1]) * x0 + np.sqrt(schedule.beta[1]) * rng.standard_normal(x0.shape)
        x0_hat = x1 / np.sqrt(schedule.alpha_bar[1])
        mean = np.clip(x0_hat, -1, 1) if clip else x0_hat
        log_mass, _ = decoder_log_likelihood(x0, mean, np.full_like(x0, np.log(schedule.beta[1])), 17)
        assert found["reconstruction"] == pytest.approx(-log_mass.mean() / math.log(2), rel=0.05)


def published_fixed_large(betas):
    """The log variances of guided-diffusion's FIXED_LARGE, by its formula: beta's, but the first is the posterior's."""
    alphas_cumprod = np.cumprod(1.0 - betas)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    return np.log(np.append(posterior_variance[1], betas[1:]))


def decoder_bits(error, log_variance, bins=256):
    """-log2 of the mass that N(x + error, sigma^2) has on the inner bin about x, by the exact error function."""
    sigma, half = math.exp(0.5 * log_variance), 1 / (bins - 1)
    upper, lower = ((side * half - error) / sigma / math.sqrt(2) for side in (1, -1))
    return -math.log2(0.5 * (math.erf(upper) - math.erf(lower)))


def test_both_conventions_of_the_first_variance_are_what_they_are_named_after():
    # linear(1000), 256 levels, a model whose mean is wrong by 0.0048, as that of a trained one: the two values of L_0.
    schedule, error = linear(1000), 0.0048
    betas = np.linspace(1e-4, 0.02, 1000)
    variances = {"guided-diffusion": fixed_large_log_variance, "refdiff": step_log_variance}
    expected = {"guided-diffusion": published_fixed_large(betas), "refdiff": np.log(betas)}
    x = (np.random.default_rng(0).integers(20, 236, (40, 4, 4, 1)) / 127.5 - 1).astype(np.float64)
    found = {}
    for name, log_variance in expected.items():
        log_variance_of, t = variances[name], np.arange(1, 1001)
        np.testing.assert_allclose(log_variance_of(schedule, t), log_variance, rtol=1e-11)
        term, _ = l_vlb_term(schedule, x, x, 1, x + error, fixed_log_variance(schedule, x, 1, log_variance_of))
        np.testing.assert_allclose(term, decoder_bits(error, float(log_variance[0])), rtol=1e-9)
        found[name] = term.mean()
    assert found["refdiff"] == pytest.approx(1.871, abs=1e-3)
    assert found["guided-diffusion"] == pytest.approx(1.583, abs=1e-3)


@pytest.mark.parametrize("T", [1, 2, 10])
@pytest.mark.parametrize("law", SCHEDULES)
def test_the_conventions_differ_in_the_first_term_alone(few, law, T):
    config = few.changed([f"schedule.kind={law}", f"schedule.T={T}", "schedule.options={}", "sample.steps=1"])
    model, x = networks.trained(config), load("digits").held_out[:8]
    published, ours, default = (
        nll(model, x, per_step=4, variance="beta", progress=False, **how)
        for how in ({"first_variance": "guided-diffusion"}, {"first_variance": "refdiff"}, {})
    )
    assert default == published
    assert (published["first_variance"], ours["first_variance"]) == ("guided-diffusion", "refdiff")
    assert published["terms"][1:] == ours["terms"][1:]
    assert (published["terms"][0] == ours["terms"][0]) == (T == 1)  # where there is no t = 2
    small = {
        name: nll(model, x, per_step=4, progress=False, first_variance=name) for name in ("guided-diffusion", "refdiff")
    }
    assert small["refdiff"]["terms"] == small["guided-diffusion"]["terms"]


def test_points_have_a_density_and_no_levels():
    config = Config.resolve("mixture", changes=["schedule.T=20", "schedule.options={beta_end=0.4}", "sample.steps=10"])
    found = nll(networks.trained(config), load("mixture").held_out[:100], per_step=20, progress=False)
    assert found["bins"] is None
    assert found["dims"] == 2
    assert np.isfinite(found["bits_per_dim"])


def test_levels_are_those_of_the_data():
    assert levels(load("digits").x) == 17
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    assert levels(pixels.astype(np.float32) / np.float32(127.5) - 1) == 256
    assert levels(np.ones((3, 2))) is None
    assert levels(np.array([-1.0, 0, 1]).reshape(1, 1, 3, 1), (3,)) == 3
    with pytest.raises(
        ValueError, match=r"x: expected images of 256 or 17 levels from -1 to 1, .*say how many with bins"
    ):
        levels(np.full((1, 2, 2, 1), 0.3))
    with pytest.raises(ValueError, match=r"x: expected images in \[-1, 1\], got -1 to 1.2; scale them"):
        levels(np.array([-1.0, 1.2]).reshape(1, 1, 2, 1))


def test_wrong_data_and_arguments_are_refused_by_name(few):
    model, x = networks.trained(few), load("digits").held_out[:4]
    for bad in (x[:0], x[:, :4], x[..., 0], np.float32(0.5) + 0 * x[0, 0, 0]):
        with pytest.raises(ValueError, match=r"x: expected samples \(N, 8, 8, 1\), got shape"):
            nll(model, bad, progress=False)
    with pytest.raises(ValueError, match=r"expected images in \[-1, 1\]"):
        nll(model, 2 * x, progress=False)
    with pytest.raises(ValueError, match=r"x0: expected data in \[-1, 1\]"):
        nll(model, 2 * x, bins=17, progress=False)
    with pytest.raises(ValueError, match="x0: expected data on the 256 levels"):
        nll(model, x, bins=256, progress=False)
    with pytest.raises(
        ValueError, match=r"variance: expected posterior or beta, since .* learns no variance, got 'learned'"
    ):
        nll(model, x, variance="learned", progress=False)
    with pytest.raises(ValueError, match="first_variance: expected one of guided-diffusion, refdiff, got 'ddpm'"):
        nll(model, x, first_variance="ddpm", progress=False)
    with pytest.raises(ValueError, match=r"x: expected at least one sample \(N, ...\), got shape \(0, 3\)"):
        estimate_bound(linear(5), lambda x, t: (x, x), points(2)[:0])
    with pytest.raises(ValueError, match="per_step: expected at least 2 samples a step, for a standard error, got 1"):
        nll(model, x, per_step=1, progress=False)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        nll(model, x, batch=0, progress=False)


def test_the_plot_is_a_picture_of_any_result(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    schedule = linear(10, 0.02, 0.3)
    result = estimate_bound(schedule, perfect(schedule), points(50), per_step=4, bins=None)
    result["terms"][0] = -0.5  # as a density's may be
    plot_nll(result, tmp_path / "nll.png")
    assert (tmp_path / "nll.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_plot_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[plot\]" in a checkout'):
        plot_nll({"terms": [], "term_errors": []}, tmp_path / "nll.png")
