"""Every public function of a schedule, on every kind of schedule there is, against 50 digits or its definition.

`CHECKS` holds one check for each, run on all of `every_schedule`, and a test compares it with what `process` exports: a
function of a schedule that is not here fails.
"""

import inspect
import warnings
from functools import cache, partial

import mpmath
import numpy as np
import pytest
from helpers import ends_and_middle

from refdiff import process
from refdiff.process import CONVERSIONS, PREDICTIONS, GaussianMixture, Schedule
from refdiff.testing.strategies import every_schedule

mpmath.mp.dps = 50
mp, root = mpmath.mpf, mpmath.sqrt
EVERY = every_schedule()
X = np.random.default_rng(0).standard_normal((4, 3))  # x_t, x_0, eps and one more, of three samples
EXACT = GaussianMixture([0.4, 0.6], [[-0.5], [0.7]], [[[0.2]], [[0.05]]])


class Exactly:
    """The numbers of a schedule in 50 digits: alpha and beta (T+1,), abar their product, and what follows."""

    def __init__(self, schedule):
        beta, alpha = ([mp(v) for v in a.tolist()] for a in (schedule.beta, schedule.alpha))
        self.alpha = [a if b > 0.5 else 1 - b for a, b in zip(alpha, beta, strict=True)]
        self.beta = [1 - a for a in self.alpha]
        self.abar = [mp(1)]
        for a in self.alpha[1:]:
            self.abar.append(self.abar[-1] * a)

    def between(self, s, t):
        alpha = mpmath.fprod(self.alpha[s + 1 : t + 1])
        return alpha, 1 - alpha

    def a_s(self, t):
        return root(self.abar[t]), root(1 - self.abar[t])

    def posterior(self, t, s=None):
        """Factors of x_0 and x_t, and the variance."""
        s = t - 1 if s is None else s
        (alpha, beta), before, now = self.between(s, t), 1 - self.abar[s], 1 - self.abar[t]
        return root(self.abar[s]) * beta / now, root(alpha) * before / now, beta * before / now

    def kind(self, name, t):
        """A prediction's factors of x_0 and eps."""
        a, s = self.a_s(t)
        of_x0, of_xt, _ = self.posterior(t)
        return {
            "x0": (mp(1), mp(0)), "eps": (mp(0), mp(1)), "v": (-s, a), "score": (mp(0), -1 / s), "x_t": (a, s),
            "mu": (of_x0 + of_xt * a, of_xt * s),
        }[name]  # fmt: skip

    def conversion(self, source, target, t):
        """target = A x_t + B source, or None where the source says nothing that x_t does not."""
        (a, s), (p, q), (u, v) = self.kind("x_t", t), self.kind(source, t), self.kind(target, t)
        determinant = a * q - s * p
        if determinant == 0:
            return None
        return (u * q - v * p) / determinant, (a * v - s * u) / determinant


exactly = cache(lambda name: Exactly(EVERY[name]))


def spans(schedule):
    """(s, t) with s < t: neighbours, from 0, and long ones."""
    return sorted({(s, t) for t in ends_and_middle(schedule) for s in (0, t // 2, t - 1) if s < t})


def beginning(schedule):
    """Of a thousand steps the first sixty, for what takes all of them; the far end is that of the respaced ones."""
    return schedule.respaced(range(1, 61)) if schedule.T > 60 else schedule


def off(actual, expected, scale=0):
    """The largest |actual - expected| over |expected| + scale; NaN never passes."""
    actual, expected = np.ravel(actual).tolist(), list(np.ravel(np.array(expected, object)))
    assert len(actual) == len(expected)
    return max(
        float(abs(mp(c) - e) / (abs(e) + scale)) if c != e else 0.0 for c, e in zip(actual, expected, strict=True)
    )


def line(*parts):
    """sum of factor * array in 50 digits, and the sum of sizes."""
    terms = [factor * np.array([mp(v) for v in array.tolist()]) for factor, array in parts]
    return sum(terms), sum(abs(t) for t in terms)


def close(actual, *parts):
    """Is it this combination? Relative to the sizes of its terms."""
    expected, size = line(*parts)
    return max(off(c, [e], z) for c, e, z in zip(actual.tolist(), expected, size, strict=True))


CHECKS = {}


def check(*names):
    return lambda f: CHECKS.update(dict.fromkeys(names, f)) or f


# --- forward ---


@check("q_step", "q_step_moments", "q_sample", "q_moments", "q_between", "q_between_moments")
def forward(schedule, e, name):
    worst = 0.0
    for s, t in spans(schedule):
        k = {"q_step": t - 1, "q_step_moments": t - 1, "q_sample": 0, "q_moments": 0}.get(name, s)
        (alpha, beta), f = e.between(k, t), getattr(process, name)
        more = (k, t) if "between" in name else (t,)
        if name.endswith("moments"):
            mean, variance = f(schedule, X[0], *more)
            worst = max(worst, close(mean, (root(alpha), X[0])), off(variance, [beta]))
        else:
            worst = max(worst, close(f(schedule, X[0], *more, X[1]), (root(alpha), X[0]), (root(beta), X[1])))
    return worst


# --- the posterior ---


@check(
    "posterior_mean", "posterior_mean_coefficients", "posterior_mean_from_eps", "posterior_variance", "step_variance"
)
def posterior(schedule, e, name):
    worst = 0.0
    for s, t in spans(schedule):
        (of_x0, of_xt, variance), (alpha, beta), f = e.posterior(t, s), e.between(s, t), getattr(process, name)
        if name == "posterior_mean":
            error = close(f(schedule, X[0], X[1], t, s), (of_xt, X[0]), (of_x0, X[1]))
        elif name == "posterior_mean_coefficients":
            error = off(f(schedule, t, s), [of_x0, of_xt])
        elif name == "posterior_mean_from_eps":
            if alpha == 0:
                continue
            error = close(
                f(schedule, X[0], X[1], t, s), (1 / root(alpha), X[0]), (-beta / e.a_s(t)[1] / root(alpha), X[1])
            )
        else:
            error = off(f(schedule, t, s), [variance if name == "posterior_variance" else beta])
        worst = max(worst, error)
    return worst


@check(
    "posterior_log_variance",
    "step_log_variance",
    "fixed_large_log_variance",
    "fixed_log_variance",
    "learned_log_variance",
)
def log_variances(schedule, e, name):
    worst = 0.0
    for t in ends_and_middle(schedule):
        small = e.posterior(max(t, 2))[2] if schedule.T > 1 else e.beta[1]
        low, high = mpmath.log(small) if small else -mpmath.inf, mpmath.log(e.beta[t])
        if name == "learned_log_variance":
            actual = process.learned_log_variance(schedule, np.array([-0.5, 0.25]), t)[0]
            expected = [low * mp("0.75") + high * mp("0.25"), low * mp("0.375") + high * mp("0.625")]
        elif name == "fixed_log_variance":
            actual, expected = process.fixed_log_variance(schedule, X[0], t), [low] * 3
        else:
            value = {"posterior": low, "step": high, "fixed_large": low if t == 1 else high}[
                name.removesuffix("_log_variance")
            ]
            actual, expected = getattr(process, name)(schedule, t), [value]
        worst = max(worst, off(actual, expected, 1))
    if name in ("learned_log_variance", "posterior_log_variance"):
        worst = max(worst, *(log_variances_between(schedule, e, name, s, t) for s, t in spans(schedule)))
    return worst


def log_variances_between(schedule, e, name, s, t):
    """Of a step from t to s; to s = 0 with the step from 2 t to t, as far as there are steps, in the posterior's place."""
    later, here = (min(2 * t, schedule.T), t) if s == 0 else (t, s)
    high = mpmath.log(e.between(s, t)[1])
    low = mpmath.log(e.posterior(later, here)[2]) if later > here else high
    if name == "posterior_log_variance":
        return off(process.posterior_log_variance(schedule, t, s), [low], 1)
    actual = process.learned_log_variance(schedule, np.array([-1.0, -0.5, 1.5]), t, s)[0]
    return off(actual, [low, low * mp("0.75") + high * mp("0.25"), low * mp("-0.25") + high * mp("1.25")], 1)


# --- predictions ---


@check(*(f.__name__ for f in CONVERSIONS.values()), "convert", "predictor")
def conversions(schedule, e, name):
    pairs = [pair for pair, f in CONVERSIONS.items() if name in (f.__name__, "convert", "predictor")]
    worst = 0.0
    for t in ends_and_middle(schedule)[:: 2 if len(pairs) > 1 else 1]:
        for source, target in pairs:
            exact = e.conversion(source, target, t)
            if exact is None or any(abs(v) > 1e300 for v in exact):
                continue
            if name == "predictor":
                if target not in ("x0", "eps") or e.conversion(source, "x0", t) is None:
                    continue
                said = process.predictor(schedule, lambda x, t: (X[1], X[2]), source)(X[0], t)
                assert np.array_equal(said[2], X[2])
                actual = said[target == "eps"]
            elif name == "convert":
                actual = process.convert(schedule, X[0], t, X[1], source, target)
            else:
                actual = getattr(process, name)(schedule, X[0], t, X[1])
            worst = max(worst, close(actual, (exact[0], X[0]), (exact[1], X[1])))
    return worst


@check("target")
def targets(schedule, e, name):
    return max(
        close(process.target(schedule, kind, X[0], X[1], t), *zip(e.kind(kind, t), X, strict=False))
        for t in ends_and_middle(schedule) for kind in PREDICTIONS
    )  # fmt: skip


@check("classifier_guidance")
def guidance(schedule, e, name):
    actual = [(t, process.classifier_guidance(schedule, X[0], t, X[1], X[2], 1.5)) for t in ends_and_middle(schedule)]
    return max(close(c, (mp(1), X[1]), (mp(-1.5) * e.a_s(t)[1], X[2])) for t, c in actual)


# --- weights ---


@check("error_scale", "vlb_weight", "min_snr_weight", "p2_weight")
def weights(schedule, e, name):
    worst = 0.0
    for t in ends_and_middle(schedule):
        for kind in PREDICTIONS:
            p, q = e.kind(kind, t)
            if e.abar[t] == 0 or (kind == "mu" and t == 1):
                continue  # at the ends of the process weights are limits, in test_weightings
            a, s = e.a_s(t)
            scale = ((a * q - s * p) / a) ** -2 if a * q != s * p else None  # |eps - eps_hat|^2 = scale |y - y_hat|^2
            if scale is None:
                continue
            snr = e.abar[t] / (1 - e.abar[t])
            if name == "vlb_weight":
                if t == 1:
                    continue
                base = e.beta[t] ** 2 / (2 * e.posterior(t)[2] * e.alpha[t] * (1 - e.abar[t]))
            else:
                base = {"error_scale": 1, "min_snr_weight": min(snr, 5) / snr, "p2_weight": 1 / (1 + snr)}[name]
            worst = max(worst, off(getattr(process, name)(schedule, t, kind), [base / scale**-1]))
    return worst


# --- samplers ---


@check("ancestral_step", "ddim_step")
def single_steps(schedule, e, name):
    worst = 0.0
    for s, t in spans(schedule):
        of_x0, of_xt, variance = e.posterior(t, s)
        if name == "ancestral_step":
            actual = process.ancestral_step(schedule, X[0], t, s, X[1], X[2])
            parts = (of_xt, X[0]), (of_x0, X[1]), (root(variance) * (s > 0), X[2])
            v = np.array([-1.0, 0.2, 1.0])
            learned = process.ancestral_step(schedule, X[0], t, s, X[1], X[2], "learned", v=v)
            wide = e.between(s, t)[1]
            sigma = [
                mpmath.exp(((1 + mp(a)) * mpmath.log(wide) + (1 - mp(a)) * mpmath.log(variance)) / 4) if s else mp(0)
                for a in v
            ]
            worst = max(worst, close(learned, *parts[:2], (np.array(sigma), X[2])))
        else:
            actual = process.ddim_step(schedule, X[0], t, s, X[1], X[2], 0.5, X[3])
            sigma2 = variance / 4
            parts = (root(e.abar[s]), X[1]), (root(max(1 - e.abar[s] - sigma2, 0)), X[2]), (root(sigma2), X[3])
        worst = max(worst, close(actual, *parts))
    return worst


def run_steps(schedule):
    """All steps, or of a thousand 40."""
    return process.uniform_steps(schedule.T, min(schedule.T, 40))


@check("ancestral", "ddim", "euler_ancestral")
def noisy_runs(schedule, e, name):
    """Each step is the single step, whose factors are checked above; DDIM with eta = 1 too."""
    steps, x = run_steps(schedule), X[0]
    if name == "euler_ancestral" and schedule.alpha_bar[-1] == 0:
        with pytest.raises(ValueError, match="alpha_bar > 0"):
            next(process.euler_ancestral(schedule, None, x, steps, None))
        return 0.0
    predict = process.predictor(schedule, lambda x, t: (np.tanh(x), np.sin(x)), "x0")
    how = {"ancestral": [{}, {"variance": "learned"}], "ddim": [{"eta": 1.0}]}.get(name, [{}])
    return max(noisy_run(schedule, name, predict, x, steps, more) for more in how)


def noisy_run(schedule, name, predict, x, steps, more):
    """And with the learned variance, v = sin x, whose step is checked above too."""
    worst, learned = 0.0, {"variance": "learned"} if "variance" in more else {}
    run = getattr(process, name)(schedule, predict, x, steps, lambda t: X[1] * np.cos(t), **more)
    for t, (s, actual) in zip(steps[::-1].tolist(), run, strict=True):
        expected = process.ancestral_step(schedule, x, t, s, predict(x, t)[0], X[1] * np.cos(t), **learned, v=np.sin(x))
        size = (
            np.abs(expected) + 1 + np.sqrt(schedule.alpha_bar[s] / schedule.alpha_bar[t])
            if schedule.alpha_bar[t]
            else 1
        )
        worst, x = max(worst, float(np.max(np.abs(actual - expected) / size))), actual
    return worst


@check("euler", "heun", "dpmpp_2m", "dpmpp_2s", "ddim_inversion")
def solver_runs(schedule, e, name):
    """For data at one point the flow is a straight line in y, and every solver is exact; up from x_0 it stays there."""
    steps, solver = run_steps(schedule), getattr(process, name)
    up = name == "ddim_inversion"
    if schedule.alpha_bar[-1] == 0 and not name.startswith("dpmpp"):
        with pytest.raises(ValueError, match="alpha_bar > 0"):
            next(solver(schedule, None, X[0], steps))
        return 0.0
    predict = process.predictor(schedule, lambda x, t: X[0], "x0")
    start = X[0] if up else process.q_sample(schedule, X[0], schedule.T, X[1])
    lost = 1 + 1 / np.sqrt(schedule.alpha_bar[-1]) if schedule.alpha_bar[-1] else 1e3
    lost *= lost if name == "heun" else 1  # which multiplies the rounding of x / a by sigma once more
    return max(
        close(x, (root(e.abar[t]), X[0]), (e.a_s(t)[1] * (not up), X[1])) / lost
        for t, x in solver(schedule, predict, start, steps)
    )


# --- the bound ---


def divergence(mean, variance, other, other_variance):
    """KL of two Gaussians, elementwise, in 50 digits."""
    return (mpmath.log(other_variance / variance) + (variance + (mean - other) ** 2) / other_variance - 1) / 2


@check("prior_matching", "l_vlb_term", "bound_terms", "l_hybrid", "fixed_reverse", "learned_reverse")
def bound(schedule, e, name):
    """Of one number at a time; each of the terms as its divergence."""
    x0, eps, worst = 0.3, 0.8, 0.0
    if name == "bound_terms":
        schedule = beginning(schedule)

    def at(v):
        return np.full((1, 1), v)

    if name == "prior_matching":
        abar = e.abar[-1]
        expected = (abar * (mp(x0) ** 2 - 1) - mpmath.log(1 - abar)) / 2
        return off(process.prior_matching(schedule, at(x0), "nats"), [expected], 1e-3 * float(abar))

    def guess(x_t, t):
        """A mean and a log variance that are not the posterior's."""
        of_x0, of_xt = process.posterior_mean_coefficients(schedule, t)
        return 0.1 * of_x0 + of_xt * x_t, at(process.posterior_log_variance(schedule, t) + 0.3)

    if name == "bound_terms":
        terms = process.bound_terms(schedule, guess, at(x0), lambda t: at(eps), None, "nats")
    for t in ends_and_middle(schedule):
        if t == 1 or e.abar[t] == 0:
            continue  # the decoder's term needs no schedule; where alpha_bar = 0 eps says nothing of the mean
        _, s = e.a_s(t)
        x_t = process.q_sample(schedule, at(x0), t, at(eps))
        of_x0, of_xt, variance = e.posterior(t)
        if name in ("fixed_reverse", "learned_reverse"):
            if name == "fixed_reverse":
                reverse = process.fixed_reverse(schedule, process.predictor(schedule, lambda x, t: at(0.2)))
                log_variance = mpmath.log(variance)
            else:
                reverse = process.learned_reverse(schedule, lambda x, t: (at(0.2), at(0.0)), "eps")
                log_variance = (mpmath.log(e.beta[t]) + mpmath.log(variance)) / 2
            actual = reverse(x_t, t)
            right = [(x_t.ravel(), 1 / root(e.alpha[t])), (np.array([0.2]), -e.beta[t] / s / root(e.alpha[t]))]
            worst = max(worst, close(actual[0].ravel(), *((f, v) for v, f in right)), off(actual[1], [log_variance], 1))
            continue
        mean, log_variance = guess(x_t, t)
        exact_mean = of_x0 * mp(x0) + of_xt * mp(x_t.item())
        expected = divergence(exact_mean, variance, mp(mean.item()), mpmath.exp(mp(log_variance.item())))
        lost = 1e-2 * (abs(x0) + abs(x_t.item())) * float(of_x0 / variance) + abs(log_variance.item())
        if name == "l_vlb_term":
            actual = process.l_vlb_term(schedule, at(x0), x_t, t, mean, log_variance, None, "nats")[0]
        elif name == "bound_terms":
            actual = terms[t - 1]
        else:
            output = np.array([[eps + 0.1, 0.0]])
            actual = process.l_hybrid(schedule, "eps", at(x0), at(eps), np.array([t]), output, 0.5, None)[0]
            size = mpmath.exp((mpmath.log(e.beta[t]) + mpmath.log(variance)) / 2)
            shift = e.beta[t] / s / root(e.alpha[t]) * mp("0.1")
            kl = divergence(mp(0), variance, shift, size)
            expected, lost = mp("0.01") + schedule.T * kl / 2 / mpmath.log(2), 1 + schedule.T * lost
        worst = max(worst, off(actual, [expected], lost))
    return worst


@check("path_densities")
def path(schedule, e, name):
    """Each log density of a path that strays a deviation and a half from the middle of its step, in 50 digits."""
    schedule = beginning(schedule)
    x = [0.3]
    for t in range(1, schedule.T + 1):
        x.append(float(root(e.alpha[t]) * mp(x[-1]) + mp("1.5") * root(e.beta[t]) * (-1) ** t))
    reverse = lambda x_t, t: (x_t / 2, np.full_like(x_t, -0.5))  # noqa: E731
    found, worst = process.path_densities(schedule, reverse, [np.full((1, 1), v) for v in x]), 0.0

    def log_normal(v, mean, variance):
        return -((mp(v) - mean) ** 2 / variance + mpmath.log(2 * mpmath.pi * variance)) / 2

    def lost(t, variance):
        return 1 + 1e-2 * (abs(x[t]) + abs(x[t - 1])) / float(root(variance))

    for t in ends_and_middle(schedule):
        before = mp(x[t - 1])
        expected = log_normal(x[t], root(e.alpha[t]) * before, e.beta[t])
        worst = max(worst, off(found.forward[t - 1], [expected], lost(t, e.beta[t])))
        worst = max(worst, off(found.reverse[t - 1], [log_normal(x[t - 1], mp(x[t]) / 2, mpmath.exp(mp("-0.5")))], 1))
        if t > 1:
            of_x0, of_xt, variance = e.posterior(t)
            expected = log_normal(x[t - 1], of_x0 * mp(x[0]) + of_xt * mp(x[t]), variance)
            size = lost(t, variance) ** 2 if expected < -10 else lost(t, variance)
            worst = max(worst, off(found.posterior[t - 2], [expected], size))
    a, s = e.a_s(schedule.T)
    worst = max(worst, off(found.marginal, [log_normal(x[-1], a * mp(x[0]), s**2)], 1))
    return max(worst, off(found.prior, [log_normal(x[-1], mp(0), mp(1))], 1))


# --- bits ---


def towards_half(x, alpha):
    return x * alpha + (1 - alpha) / 2


def bits_posterior(e, t, x0, x_t):
    """q(x_{t-1} = 1 | x_t, x_0) by Bayes' rule."""
    one = towards_half(mp(x0), e.abar[t - 1])
    joint = [chance * (p if x_t else 1 - p) for chance, p in
             ((1 - one, towards_half(mp(0), e.alpha[t])), (one, towards_half(mp(1), e.alpha[t])))]  # fmt: skip
    return joint[1] / sum(joint)


def bits_divergence(p, logit):
    s = 1 / (1 + mpmath.exp(-mp(logit)))
    return mpmath.fsum(v * mpmath.log(v / w) for v, w in ((p, s), (1 - p, 1 - s)) if v > 0)


@check("binomial_step", "binomial_marginal", "binomial_posterior", "binomial_posterior_coefficients", "binomial_log_odds",
       "binomial_posterior_entropy", "binomial_prior_matching", "binomial_term", "binomial_bound_terms",
       "binomial_ancestral")  # fmt: skip
def bits(schedule, e, name):
    if name == "binomial_prior_matching":
        actual, p = process.binomial_prior_matching(schedule, np.zeros((1, 1)), "nats"), towards_half(1, e.abar[-1])
        return off(actual, [mpmath.log(2) + mpmath.fsum(v * mpmath.log(v) for v in (p, 1 - p) if v > 0)])
    if name in ("binomial_bound_terms", "binomial_ancestral"):
        return bits_run(beginning(schedule), name)
    return max(bits_at(schedule, e, name, t) for t in ends_and_middle(schedule))


def bits_at(schedule, e, name, t):
    x, f = np.array([0.0, 1.0]), getattr(process, name)
    pairs = [(0, 0), (1, 0), (0, 1), (1, 1)]
    if name in ("binomial_step", "binomial_marginal"):
        alpha = e.alpha[t] if name == "binomial_step" else e.abar[t]
        return off(f(schedule, x, t), [towards_half(0, alpha), towards_half(1, alpha)])
    if name == "binomial_log_odds":
        return off(f(schedule, t), [mpmath.log((2 - e.beta[t]) / e.beta[t])])
    exact = [bits_posterior(e, t, *pair) for pair in pairs]
    if name == "binomial_posterior_coefficients":
        return off(f(schedule, t), [exact[0], exact[1] - exact[0], exact[2] - exact[0]])
    if name == "binomial_posterior_entropy":
        each = [-mpmath.fsum(v * mpmath.log(v) for v in (p, 1 - p) if v > 0) for p in exact]
        return max(off(f(schedule, t), each[:2]), off(f(schedule, t)[::-1], each[2:]))
    x0, x_t = np.array(pairs, float).T
    if name == "binomial_posterior":
        return off(f(schedule, x_t, x0, t), exact)
    logits = np.array([0.3, -1.2, 2.0, -0.1])
    expected = [bits_divergence(p, logit) for p, logit in zip(exact, logits.tolist(), strict=True)]
    return off(f(schedule, x0[:, None], x_t[:, None], t, logits[:, None], "nats"), expected, 1)


def bits_run(schedule, name):
    """Each step is the single step, whose numbers are checked above."""
    x0, u = np.array([[0.0, 1.0, 1.0]]), np.array([[0.2, 0.6, 0.9]])
    if name == "binomial_bound_terms":
        actual = process.binomial_bound_terms(schedule, lambda x, t: x - 0.5, x0, lambda t: u * np.cos(t) ** 2, "nats")
        expected = []
        for t in range(1, schedule.T + 1):
            x_t = (u * np.cos(t) ** 2 < process.binomial_marginal(schedule, x0, t)).astype(float)
            expected.append(process.binomial_term(schedule, x0, x_t, t, x_t - 0.5, "nats"))
        return off(actual, np.array([*expected, process.binomial_prior_matching(schedule, x0, "nats")]))
    x, run = x0, process.binomial_ancestral(schedule, lambda x, t: x - 0.5, x0, lambda t: u)
    for t, (s, actual) in zip(range(schedule.T, 0, -1), run, strict=True):
        x = (u < 1 / (1 + np.exp(0.5 - x))).astype(float)
        assert s == t - 1
        assert np.array_equal(actual, x)
    return 0.0


# --- schedules, steps, data ---


@check("rescale_zero_terminal_snr")
def rescaled(schedule, e, name):
    if schedule.T == 1:
        with pytest.raises(ValueError, match="at least two steps"):
            process.rescale_zero_terminal_snr(schedule)
        return 0.0
    actual, first, last = process.rescale_zero_terminal_snr(schedule), root(e.abar[1]), root(e.abar[-1])
    exact = [(first * (root(e.abar[t]) - last) / (first - last)) ** 2 for t in ends_and_middle(schedule)]
    return max(
        off(actual.alpha_bar[ends_and_middle(schedule)], exact),
        off(actual.one_minus_alpha_bar[ends_and_middle(schedule)], [1 - v for v in exact]),
    )


@check("Schedule.between", "Schedule.respaced")
def spans_of_schedule(schedule, e, name):
    if name == "Schedule.between":
        return max(off(schedule.between(s, t), e.between(s, t)) for s, t in spans(schedule))
    few = schedule.respaced(ends_and_middle(schedule))
    ends = list(zip([0, *ends_and_middle(schedule)][:-1], ends_and_middle(schedule), strict=True))
    return max(
        off(few.alpha[1:], [e.between(*p)[0] for p in ends]), off(few.beta[1:], [e.between(*p)[1] for p in ends])
    )


@check("karras_steps")
def karras(schedule, e, name):
    """Where no two fall on one step: how much nearer another step would be in log sigma."""
    if schedule.alpha_bar[-1] == 0:
        with pytest.raises(ValueError, match="alpha_bar_T > 0"):
            process.karras_steps(schedule, 1)
        return 0.0
    n = min(schedule.T, 7)
    actual, log_sigma = process.karras_steps(schedule, n), -0.5 * np.log(schedule.snr[1:])
    assert actual[-1] == schedule.T
    if n == 1:
        return 0.0
    low, high = np.exp(log_sigma[[0, -1]] / 7)
    away = np.abs(log_sigma - 7 * np.log(low + (high - low) * np.linspace(0, 1, n))[:, None])
    if len(set(away.argmin(axis=1))) < n:
        return 0.0 if np.all(np.diff(actual) > 0) else np.inf
    return 1e-4 * float((away[np.arange(n), actual - 1] - away.min(axis=1)).max())


@check("flow_log_likelihood")
def flow(schedule, e, name):
    """Of narrow Gaussian data, in units of 1e-13 for a bound of 1e-4."""
    data, steps = GaussianMixture([1.0], [[0.3]], [[[0.04]]]), run_steps(schedule)
    if schedule.alpha_bar[steps[0]] == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exact for a Gaussian also where it cannot be believed
        got = process.flow_log_likelihood(
            schedule, lambda x, t: (None, data.eps(schedule, x, t)), X[0][:, None], steps,
            prior=lambda x: data.log_density(schedule, x, schedule.T),
        )  # fmt: skip
    return 1e-9 * float(abs(got - data.log_density(schedule, X[0][:, None], 0)).max())


@check(*(f"GaussianMixture.{name}" for name in ("log_density", "score", "eps", "x0", "v", "x0_error")))
def mixtures(schedule, e, name):
    worst, x = 0.0, 0.4
    for t in ends_and_middle(schedule):
        (a, s), method = e.a_s(t), name.split(".")[1]
        logs, given = [], []
        for w, m, c in zip(EXACT.weights, EXACT.means[:, 0], EXACT.covariances[:, 0, 0], strict=True):
            spread, away = a**2 * mp(c) + s**2, mp(x) - a * mp(m)
            logs.append(mpmath.log(mp(w)) - (away**2 / spread + mpmath.log(2 * mpmath.pi * spread)) / 2)
            given.append((mp(m) + a * mp(c) * away / spread, s**2 * mp(c) / spread, -away / spread))
        total = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in logs))
        share = [mpmath.exp(v - total) for v in logs]
        mean, score = (mpmath.fsum(r * g[i] for r, g in zip(share, given, strict=True)) for i in (0, 2))
        expected = {
            "log_density": total, "score": score, "eps": -s * score, "x0": mean, "v": -a * s * score - s * mean,
            "x0_error": mpmath.fsum(r * (g[1] + (g[0] - mean) ** 2) for r, g in zip(share, given, strict=True)),
        }[method]  # fmt: skip
        worst = max(worst, off(getattr(EXACT, method)(schedule, np.array([[x]]), t), [expected], 1e-2))
    return worst


@check("GaussianMixture.log_posterior", "GaussianMixture.dlog_posterior")
def posteriors_of_mixtures(schedule, e, name):
    """Of the first of two components: log p = -log(1 + exp(d)), d the second's log density less the first's."""
    worst, x = 0.0, 0.4
    for t in [0, *ends_and_middle(schedule)]:
        a, s = e.a_s(t)
        logs, slopes = [], []
        for w, m, c in zip(EXACT.weights, EXACT.means[:, 0], EXACT.covariances[:, 0, 0], strict=True):
            spread, away = a**2 * mp(c) + s**2, mp(x) - a * mp(m)
            logs.append(mpmath.log(mp(w)) - (away**2 / spread + mpmath.log(2 * mpmath.pi * spread)) / 2)
            slopes.append(-away / spread)
        ratio = mpmath.exp(logs[1] - logs[0])
        slope = (slopes[0] - slopes[1]) * ratio / (1 + ratio)
        expected = -mpmath.log(1 + ratio) if name.endswith(".log_posterior") else slope
        actual = getattr(EXACT, name.split(".")[1])(schedule, np.array([[x]]), t, 0)
        worst = max(worst, off(actual, [expected], 1e-2))
    return worst


@check("GaussianMixture.bound")
def bound_of_mixture(schedule, e, name):
    """Of one Gaussian, where it is a sum of known terms."""
    schedule = beginning(schedule)
    m, c, T = mp("0.25"), mp("0.5"), schedule.T
    actual = GaussianMixture([1.0], [[0.25]], [[[0.5]]]).bound(schedule)
    worst = off(actual[-1:], [(e.abar[T] * (c + m**2 - 1) - mpmath.log(1 - e.abar[T])) / 2], 1e-3 * float(e.abar[T]))
    for t in ends_and_middle(schedule):
        of_x0, _, variance = e.posterior(t)
        a, s = e.a_s(t)
        ratio = variance / e.beta[t]
        known = ratio - 1 - mpmath.log(ratio) if t > 1 else mpmath.log(2 * mpmath.pi * e.beta[t])
        expected = (of_x0**2 / e.beta[t] * s**2 * c / (a**2 * c + s**2) + known) / 2
        worst = max(worst, off(actual[t - 1 : t], [expected], 1))
    return worst


def public():
    """Every function and method that `process` exports and that takes a schedule."""
    names = set()
    for name in vars(process):
        value = getattr(process, name)
        if name.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            names |= {
                f"{name}.{n}"
                for n, f in methods
                if not n.startswith("_") and ("schedule" in takes(f) or value is Schedule)
            }
        elif "schedule" in takes(value):
            names.add(name)
    return names


def takes(f):
    """Its parameters, but a schedule in continuous time, whose functions are checked in test_continuous."""
    given = inspect.signature(f).parameters
    return {name for name, parameter in given.items() if "Continuous" not in str(parameter.annotation)}


def test_every_public_function_of_a_schedule_has_its_check():
    assert public() - set(CHECKS) == set()
    assert set(CHECKS) - public() == set()


def test_every_kind_of_schedule_is_among_them():
    assert {name for name in process.SCHEDULES if f"{name}(1000), zero" in EVERY} == set(process.SCHEDULES)
    assert {1, 2, 1000} <= {s.T for s in EVERY.values()}
    assert min(s.beta[1:].min() for s in EVERY.values()) <= 1e-10
    assert any(s.timestep[-1] > s.T for s in EVERY.values())


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_it_is_right_on_every_schedule(name):
    wrong = {}
    for which, schedule in EVERY.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            error = partial(CHECKS[name], schedule, exactly(which))(name)
        if not error <= 1e-13:
            wrong[which] = error
    assert not wrong
