"""The two systems of 2015, bits and learned variances: what they measure, draw, hold and refuse."""

import re
from dataclasses import replace

import numpy as np
import pytest

from refdiff import models, process
from refdiff.config import PRESETS, NetworkConfig
from refdiff.data import Dataset, load
from refdiff.errors import NotFiniteError
from refdiff.models import ClassifierConfig, MLPConfig, TableConfig
from refdiff.random import Key, Sequence, normal
from refdiff.systems import Binomial, Nonequilibrium, draw, measure, trajectory
from refdiff.systems.bits import bits_reverse
from refdiff.systems.learned_beta import bound_table, first_term, learned_schedule
from refdiff.training import State, system_model, train
from systems import bits, checks, learned_beta

ROLL = load("swissroll")
EVALUATE = Key(0).under("evaluate")
UNIT_BITS = 0.5 / np.log(2)


def model_of(module, state=None, **objective):
    config = replace(module.config, objective=replace(module.config.objective, **objective))
    return system_model(config, state or State.first(config))


def evaluate(model, data):
    return model.module.evaluate(model.networks, model.objective, data, EVALUATE, False)


@pytest.fixture(scope="module")
def heartbeat():
    """A run of 100 steps, its state and its model."""
    worker, _ = checks.trained(bits.config, bits.data, State.first(bits.config), 100)
    return worker.state(), model_of(bits, worker.state())


# ---- what is measured


def test_bits_of_a_network_that_says_nothing_are_throws_of_a_coin():
    """p is the perfect reverse process of these, so that the bound of any data is one bit a dimension."""
    found = evaluate(model_of(bits), bits.data)
    assert found["bound_bits"] == pytest.approx(20, abs=5 * found["bound_bits_error"])
    assert 0 < found["bound_bits_error"] < 0.1
    assert found["entropy_bits"] == pytest.approx(np.log2(5), abs=1e-12)
    assert found["independent_bits"] == pytest.approx(20 * 0.7219, abs=0.01)  # of ones at the rate 1/5
    assert found["samples_among_data"] == 0
    assert len(found["terms"]) == bits.T + 1
    assert found["prior_bits"] == 0


def test_points_of_a_network_that_says_nothing_are_normal():
    """p(x_0) = N(0, 1) whatever the variances are, and the bound is exact."""
    found = evaluate(model_of(learned_beta), ROLL)
    assert found["gain_bits"] == pytest.approx(0, abs=5 * found["bound_bits_error"])
    assert found["gaussian_bits"] == pytest.approx(UNIT_BITS * (ROLL.held_out**2 + np.log(2 * np.pi)).sum(1).mean())
    assert found["bound_bits_error"] < 0.04
    assert np.allclose(found["beta"], [1e-2, *learned_beta.FIRST], rtol=1e-6)


def mean_loss(config, data, state, times=40):
    """The mean of the loss over so many batches of 512 of what is held out, and its standard error."""
    networks, found = checks.networks_of(config, state), []
    for step in range(times):
        key = Key(7, step, 0, 512).under("loss")
        x = data.held_out[np.arange(512) % len(data.held_out)].astype(np.float64)
        batch = config.objective.draw(checks.REFERENCE, {"x": x}, key, {})
        terms, _ = config.objective.loss_and_gradient(checks.REFERENCE, networks, batch, key)
        found.append(terms["loss"])
    found = np.concatenate(found)
    return found.mean(), found.std() / len(found) ** 0.5


@pytest.mark.parametrize("module", [bits, learned_beta])
def test_the_loss_is_the_bound_in_the_mean(module):
    """Of networks moved a little, in float64; `evaluate` has none of its operations."""
    config, data = module.config, load("heartbeat") if module is bits else ROLL
    state = State.first(config)
    moved = {name: network.p for name, network in checks.networks_of(config, state).items()}
    model = model_of(module, replace(state, trees=state.trees | {"p": moved, "ema": moved}))
    found, (loss, error) = evaluate(model, data), mean_loss(config, data, state)
    assert found["bound_bits"] == pytest.approx(loss, abs=4 * (error + found["bound_bits_error"]))
    assert error < 0.03 * loss


@pytest.mark.parametrize("first", [1e-3, 0.5])
def test_the_first_term_is_the_mean_over_x_1(first):
    """Of -log2 N(x_0; sqrt(1 - beta_1) x_1, beta_1), by Gauss-Hermite quadrature, which is exact of a square."""
    x0 = np.random.default_rng(0).standard_normal((3, 2))
    one, _, of_square, constant, *_ = checks.REFERENCE.columns(bound_table(5, first, 2), np.full(3, 4))
    eps, weight = np.polynomial.hermite_e.hermegauss(3)
    x_1 = np.sqrt(1 - first) * x0 + np.sqrt(first) * eps[:, None, None]
    density = (x0 - np.sqrt(1 - first) * x_1) ** 2 / first + np.log(2 * np.pi * first)
    expected = (weight / weight.sum()) @ density.sum(axis=-1) / 2 / np.log(2)
    np.testing.assert_allclose(first_term(checks.REFERENCE, x0, of_square, constant, one), expected, rtol=1e-12)


def test_a_short_run_of_the_heartbeat_lies_between_its_entropy_and_independent_bits(heartbeat):
    found = evaluate(heartbeat[1], bits.data)
    assert found["entropy_bits"] < found["bound_bits"] < 0.9 * found["independent_bits"]


# ---- what is drawn


def test_samples_are_bits_and_functions_of_their_own_number(heartbeat):
    model = heartbeat[1]
    x = draw(model, 6, progress=False)
    assert (x.shape, x.dtype, set(np.unique(x))) == ((6, 1, 20, 1), np.float32, {-1.0, 1.0})
    way = list(trajectory(model, np.array([4, 1])))
    assert [t for t, _ in way] == list(range(bits.T, -1, -1))
    assert np.array_equal(way[-1][1], x[[4, 1]])


@pytest.mark.parametrize("module", [bits, learned_beta])
def test_known_elements_are_held_all_the_way(module):
    model, of_one = model_of(module), (1, 20, 1) if module is bits else (2,)
    known = np.where(np.arange(5 * np.prod(of_one)) % 3 == 0, 1.0, -1.0).reshape(5, *of_one).astype(np.float32)
    mask = np.zeros_like(known)
    mask.reshape(5, -1)[:, 0] = 1
    way = [x for _, x in trajectory(model, np.arange(5), 0, {"known": known, "mask": mask})]
    free = [x for _, x in trajectory(model, np.arange(5))]
    for x in way:
        assert np.array_equal(x[mask == 1], known[mask == 1])
    assert np.array_equal(way[0][mask == 0], free[0][mask == 0])
    assert not np.array_equal(way[-1], free[-1])
    conditions = {"known": known, "mask": mask}
    assert np.array_equal(draw(model, 5, 0, conditions, batch=2, progress=False), way[-1])


def test_a_known_pulse_is_gone_on_with(heartbeat):
    """With the first period given the model of a heartbeat repeats it in more samples than it would by itself."""
    known = np.tile(bits.data.x[3], (200, 1, 1, 1))
    mask = np.zeros_like(known)
    mask[:, :, :10] = 1
    state, _ = heartbeat
    worker, _ = checks.trained(bits.config, bits.data, state, 200)
    x = draw(model_of(bits, worker.state()), 200, 0, {"known": known, "mask": mask}, progress=False)
    free = draw(model_of(bits, worker.state()), 200, 0, progress=False)
    right, by_itself = ((s == known).all(axis=(1, 2, 3)).mean() for s in (x, free))
    assert right > 2 * by_itself


# ---- a noisy observation: perfect reverse processes, of which the posterior is known


def perfect(module, say, **objective):
    """The model whose denoiser says say(x, t)."""
    model = model_of(module, **objective)
    networks = model.networks | {"denoiser": model.networks["denoiser"]._replace(predict=lambda b: say(b["x"], b["t"]))}
    return model._replace(networks=networks)


@pytest.mark.parametrize(("y", "s"), [(1.5, 0.4), (-0.7, 2.0)])
def test_a_number_seen_in_noise_has_its_posterior(y, s):
    """x_1 is drawn whatever x_2 is, so that r stands before one step, but for the last, of variance 1e-6: of N(0, 1) data
    the samples are those of N(y / (1 + s^2), s^2 / (1 + s^2))."""
    n, chain = 20_000, TableConfig(1, 1, (40.0,))
    config = replace(
        learned_beta.config, objective=Nonequilibrium(T=2, first=1e-6),
        networks=learned_beta.config.networks | {"beta": NetworkConfig(chain)},
    )  # fmt: skip
    x = draw(
        system_model(config, State.first(config)), n, 0, {"observed": np.full((n, 2), y), "deviation": s}, n, False
    )
    variance = s**2 / (1 + s**2)
    assert np.abs(x.mean(axis=0) - y / (1 + s**2)).max() < 4 * (variance / n) ** 0.5
    assert np.abs(x.var(axis=0) / variance - 1).max() < 4 * (2 / n) ** 0.5
    assert abs(np.corrcoef(x.T)[0, 1]) < 4 / n**0.5


@pytest.mark.parametrize("y", [-1, 1])
def test_bits_seen_in_noise_have_their_posterior(y):
    """In one step from throws of a coin, of bits that are 1 with probability q: q r(1) / (q r(1) + (1 - q) r(0))."""
    n, p, q = 5000, 0.2, np.linspace(0.05, 0.95, 20).reshape(1, 20, 1)
    model = perfect(bits, lambda x, t: np.broadcast_to(np.log(q / (1 - q)), x.shape), T=1)
    x = draw(model, n, 0, {"observed": np.full((n, 1, 20, 1), y), "flipped": p}, n, False)
    r_1, r_0 = (1 - p, p) if y == 1 else (p, 1 - p)
    exact = q * r_1 / (q * r_1 + (1 - q) * r_0)
    assert np.abs(((x == 1).mean(axis=0) - exact) / (exact * (1 - exact) / n) ** 0.5).max() < 4
    assert set(np.unique(x)) == {-1.0, 1.0}


def says_the_heartbeat(x, t):
    """What the network of the perfect reverse process of five sequences says: q(x_{t-1} | x_t), summed over x_0."""
    s, pulses = process.reciprocal(PULSES), (bits.data.x[:5].astype(np.float64) + 1) / 2
    x, t = (x.astype(np.float64) + 1) / 2, int(t[0])
    rate = process.binomial_marginal(s, pulses, t)[None]
    likelihood = np.where(x[:, None] == 1, rate, 1 - rate).prod(axis=(2, 3, 4))
    posterior = likelihood / likelihood.sum(axis=1, keepdims=True)
    c, of_x0, of_xt = process.binomial_posterior_coefficients(s, t)
    p = np.clip(c + of_x0 * np.tensordot(posterior, pulses, 1) + of_xt * x, 1e-12, 1 - 1e-12)
    return np.log(p / (1 - p)) - process.binomial_log_odds(s, t) * (2 * x - 1)


PULSES = 200


@pytest.mark.parametrize("p", [0.2, 0.35])
def test_a_heartbeat_seen_in_noise_has_its_posterior(p):
    """The five sequences are drawn as often as Bayes' rule says, and nothing else is drawn: of data that are so few, and far
    from each other, the r of the paper, the same at all t, does what it should."""
    n, pulses = 1000, bits.data.x[:5]
    y = np.where(np.random.default_rng(3).uniform(size=(1, 20, 1)) < p, -pulses[2], pulses[2])
    exact = np.where(pulses == y, 1 - p, p).prod(axis=(1, 2, 3))
    exact = exact / exact.sum()
    model = perfect(bits, says_the_heartbeat, T=PULSES)
    x = draw(model, n, 0, {"observed": np.broadcast_to(y, (n, 1, 20, 1)), "flipped": p}, n, False)
    found = np.array([(x == pulse).all(axis=(1, 2, 3)).mean() for pulse in pulses])
    assert found.sum() == 1
    assert np.abs(found - exact).max() < 4 * (0.25 / n) ** 0.5
    assert np.abs(exact - 0.2).max() > 0.2


@pytest.mark.parametrize("name", ["heartbeat", "swissroll", "binary-digits"])
def test_a_picture_of_each(name, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra `plot`, is not installed")
    data, model = load(name), model_of(learned_beta if name == "swissroll" else bits)
    if name == "binary-digits":
        config = replace(bits.config, networks={"denoiser": NetworkConfig(MLPConfig((8, 8, 1), 16, 1))})
        model = system_model(config, State.first(config))
    model.module.plot(model.networks, model.objective, data, evaluate(model, data), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Binomial(T=0), "objective.T: expected at least one step from data to noise, got 0"),
        (lambda: Nonequilibrium(T=0), "objective.T: expected at least 2 steps, of which the first is fixed, got 0"),
        (lambda: Nonequilibrium(T=1), "objective.T: expected at least 2 steps, of which the first is fixed, got 1"),
        (lambda: Nonequilibrium(first=1.0), "objective.first: expected beta_1, a number between 0 and 1, got 1.0"),
        (lambda: Nonequilibrium(first=0.0), "objective.first: expected beta_1, a number between 0 and 1, got 0.0"),
        (lambda: changed(bits, denoiser=MLPConfig((1, 20, 1), outputs=2)),
         "networks.denoiser.outputs: expected 1 for each element of a sample, got 2; give networks.denoiser.outputs=1"),
        (lambda: changed(learned_beta, denoiser=MLPConfig(2)), "networks.denoiser.outputs: expected 2 for each element"),
        (lambda: changed(bits, denoiser=MLPConfig((1, 20, 1), classes=5)),
         "networks.denoiser: expected a network that reads x and t alone, got MLPConfig, which reads x, t, label; give "
         "networks.denoiser.classes=0"),
        (lambda: changed(learned_beta, beta=TableConfig(5)),
         "networks.beta: expected a table of T - 1 = 19 rows of 1, the logits of beta_2 .. beta_T, got 5 rows of 1; give"),
        (lambda: changed(learned_beta, beta=MLPConfig(2)), "networks.beta: expected a table of T - 1 = 19 rows of 1"),
        (lambda: replace(bits.config, objective=Binomial(trains=())), "objective.trains: expected denoiser, got none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        make()


def changed(module, **networks):
    given = {name: NetworkConfig(model) for name, model in networks.items()}
    return replace(module.config, networks=module.config.networks | given)


def test_samples_that_are_no_bits_are_refused_before_the_first_step():
    config = replace(bits.config, networks={"denoiser": NetworkConfig(MLPConfig((8, 8, 1), 16, 1))})
    with pytest.raises(
        ValueError, match=r"\Adata.source: expected bits, each -1 or 1, got \d+ of 92288 values that are "
    ):
        train(config, data=load("digits"), progress=False)
    model = system_model(config, State.first(config))
    with pytest.raises(ValueError, match=r"\Adata.source: expected bits"):
        measure(model, load("digits"))


@pytest.mark.parametrize(
    ("module", "networks", "message"),
    [
        (bits, {"denoiser": ClassifierConfig(8, 1, 8, (1,), 1, (), groups=4, classes=2)},
         "networks.denoiser.kind: expected a network that says an array of the shape of x, got 'classifier', which says"),
        (learned_beta, {"beta": TableConfig(learned_beta.T - 1, 1, (500.0,))},
         "networks.beta: expected logits whose sigmoids are values in (0, 1), 1 at the last step at most, got 1.0 at t = 2"),
        (learned_beta, {"beta": TableConfig(learned_beta.T - 1, 1, (-1000.0,))},
         "networks.beta: expected logits whose sigmoids are values in (0, 1), 1 at the last step at most, got 0.0 at t = 2"),
    ],
)  # fmt: skip
def test_networks_of_which_no_step_can_be_made_are_refused(module, networks, message):
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        changed(module, **networks)


@pytest.mark.parametrize("value", [np.nan, np.inf, 40.0, -1000.0])
def test_variances_that_training_has_lost_say_so(value):
    with pytest.raises(ValueError, match=r"\Anetworks.beta: expected .*; .*lower networks.beta.learning_rate\Z"):
        learned_schedule(np.full((5, 1), value, np.float32), 1e-3)


def test_logits_that_are_no_number_make_no_bits():
    """Any comparison of NaN with a uniform number would make a bit of it."""
    reverse = bits_reverse(lambda batch: np.full(batch["x"].shape, np.nan, np.float32), 4)
    with pytest.raises(NotFiniteError, match=r"\Anetworks.denoiser: expected finite logits, got 6 of 6 that are not"):
        reverse(np.ones((2, 3)), 2)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("module", [bits, learned_beta])
def test_a_picture_of_points(module, size, tmp_path):
    """Also of another number of coordinates than two."""
    pytest.importorskip("matplotlib")
    config = changed(module, denoiser=MLPConfig(size, 8, 1, outputs=1 if module is bits else 2))
    x = np.sign(normal(Sequence(0, 1), np.arange(30), (size,)))
    model, data = system_model(config, State.first(config)), Dataset("signs", x[:20], None, x[20:], None)
    found = {"terms": [-1.0, 1.0, 0.0], "bound_bits": 0.0}
    model.module.plot(model.networks, model.objective, data, found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


ONES = np.ones((2, 2))
BITS = np.ones((2, 1, 20, 1))


@pytest.mark.parametrize(
    ("module", "conditions", "message"),
    [
        (learned_beta, {"known": ONES},
         "conditions: expected known and mask, observed and deviation, or none, got known; give both of one kind"),
        (learned_beta, {"label": ONES}, "conditions: expected known and mask, observed and deviation, or none, got label"),
        (learned_beta, {"known": ONES, "mask": ONES, "observed": ONES, "deviation": 1.0},
         "conditions: expected known and mask, observed and deviation, or none, got deviation, known, mask, observed; give"),
        (learned_beta, {"observed": ONES, "flipped": 0.1},
         "conditions: expected known and mask, observed and deviation, or none, got flipped, observed; give both"),
        (bits, {"observed": BITS, "deviation": 0.1},
         "conditions: expected known and mask, observed and flipped, or none, got deviation, observed; give both"),
        (learned_beta, {"known": ONES, "mask": ONES[:, :1]}, "mask: expected one a sample, (2, 2), got (2, 1)"),
        (learned_beta, {"known": ONES, "mask": ONES / 2}, "mask: expected 1 where elements are known, 0 where they are to "),
        (learned_beta, {"known": ONES * np.nan, "mask": ONES}, "known: expected finite numbers, got 4 of 4 that are not"),
        (learned_beta, {"observed": ONES[0], "deviation": 1.0}, "observed: expected one a sample, (2, 2), got (2,)"),
        (learned_beta, {"observed": ONES * np.inf, "deviation": 1.0}, "observed: expected finite numbers, got 4 of 4"),
        (learned_beta, {"observed": ONES, "deviation": ONES},
         "deviation: expected one number for all samples, got an array of (2, 2)"),
        (learned_beta, {"observed": ONES, "deviation": 0}, "deviation: expected a positive number, got 0; what is seen "),
        (learned_beta, {"observed": ONES, "deviation": -1.0}, "deviation: expected a positive number, got -1; what is "),
        (learned_beta, {"observed": ONES, "deviation": np.nan}, "deviation: expected a positive number, got nan; what is "),
        (bits, {"observed": BITS, "flipped": 0.0}, "flipped: expected a probability between 0 and 1/2, both left out"),
        (bits, {"observed": BITS, "flipped": 0.5},
         "flipped: expected a probability between 0 and 1/2, both left out, got 0.5; bits that are seen without error are"),
        (bits, {"observed": BITS / 2, "flipped": 0.1}, "observed: expected bits, each -1 or 1, got 40 of 40 values that "),
        (bits, {"known": BITS * 0, "mask": BITS}, "known: expected bits, each -1 or 1, got 40 of 40 values that are "),
    ],
)  # fmt: skip
def test_conditions_that_are_none_are_refused(module, conditions, message):
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}[^\n]*\Z"):
        list(trajectory(model_of(module), np.arange(2), 0, conditions))


def test_conditions_of_other_numbers_of_samples_and_of_systems_that_have_none_are_refused():
    conditions = {"observed": np.zeros((3, 2)), "deviation": 1.0}
    with pytest.raises(ValueError, match=r"\Aobserved: expected one a sample, 4, or a number for all, got 3\Z"):
        draw(model_of(learned_beta), 4, 0, conditions, progress=False)
    config = PRESETS["digits-vae"]
    with pytest.raises(
        ValueError, match=r"\Aconditions: expected none, since samples of VAE are told nothing, got observed"
    ):
        draw(system_model(config, State.first(config)), 4, 0, {"observed": np.zeros(4)}, progress=False)


# ---- presets


@pytest.mark.parametrize("name", ["heartbeat", "digits-binary", "swissroll-2015"])
def test_a_preset_fits_its_data(name):
    config = PRESETS[name]
    data = config.data.open()
    model = system_model(config, State.first(config))
    assert model.shape == data.shape
    config.objective.check_samples(data.x)
    networks = {n: network.model for n, network in config.networks.items()}
    assert config.objective.reads(networks)["x"].shape == data.shape


def test_every_row_of_the_table_is_the_step_that_t_says():
    """t and its row are two draws of one sequence, counted from 2 and from 0."""
    key = Key(3, 1, 0, 1000)
    batch = learned_beta.config.objective.draw(checks.REFERENCE, {"x": np.zeros((1000, 2), np.float32)}, key, {})
    assert np.array_equal(batch["t"], batch["row"] + 2)
    assert set(batch["t"].tolist()) == set(range(2, learned_beta.T + 1))
    assert set(batch["end"].tolist()) == {learned_beta.T - 2}


def test_a_later_variance_moves_no_earlier_step():
    """The gradient of the terms at t alone: zero for the logits after t, but for the last state's own term."""
    config = learned_beta.config
    networks = checks.networks_of(config, State.first(config))
    weight = networks["beta"].p["weight"]
    x = np.random.default_rng(0).standard_normal((4, 2))
    batch = {
        "x": x,
        "t": np.full(4, 5),
        "row": np.full(4, 3),
        "end": np.full(4, learned_beta.T - 2),
        "eps": x[::-1].copy(),
    }
    key = Key(0, 1, 0, 4)
    _, g = config.objective.loss_and_gradient(checks.REFERENCE, networks, batch, key)
    raised = weight.copy()
    raised[10:] += 30  # alpha_bar_T is 0, and so is what L_T says of any logit
    far = networks | {"beta": models.Network(config.networks["beta"].model, {"weight": raised})}
    _, without = config.objective.loss_and_gradient(checks.REFERENCE, far, batch, key)
    assert np.abs(without["beta"]["weight"][4:]).max() < 1e-12
    assert np.abs(g["beta"]["weight"][:4]).min() > 1e-6
