"""What one system has, and no other: labels that decide, a codebook and a target that no gradient moves, a turn that begins
later, a memory, a schedule that is learned, tokens that are continued."""

from dataclasses import replace

import numpy as np
import pytest

from refdiff import models
from refdiff.models import flatten, tree_map
from refdiff.objectives import HISTORY, step_probability
from refdiff.random import Key
from refdiff.sampling import sample
from refdiff.training import State, load_state, trained
from refdiff.training.trainers import trainer
from systems import (
    checks,
    consistency,
    contrastive,
    hybrid,
    importance,
    learned_beta,
    rows,
    tokens,
    variational_diffusion,
)
from systems import vector_quantised as vq


def run(module, steps=None, state=None):
    """The state after a whole run, or so many steps of it."""
    config = module.config
    worker, measured = checks.trained(config, module.data, state or State.first(config), steps or config.train.steps)
    return worker.state(), measured


def test_a_label_decides_and_a_learned_variance_is_sampled():
    state, _ = run(hybrid)
    settings = replace(hybrid.config.sample, method="ancestral", variance="learned", threshold="none", guidance=2.0)
    model = trained(hybrid.config, state)._replace(settings=settings)
    label = np.arange(60) % 3
    x = sample(model, 60, conditions={"label": label}, progress=False)
    right = ((x[:, None] - rows.CENTRES) ** 2).sum(-1).argmin(1) == label
    assert right.mean() >= 0.9


def test_a_codebook_is_the_average_of_what_was_nearest():
    """p <- d p + (1 - d) g: of two steps that differ in d alone, the one with d = 0 shows g."""
    state, _ = run(vq, 2)
    networks = vq.config.networks
    g = replace(networks["codebook"], rule=replace(networks["codebook"].rule, decay=0.0))
    shown = replace(vq.config, networks=networks | {"codebook": g})
    a, b = (checks.trained(c, vq.data, state, 1)[0].state().trees["p"]["codebook"] for c in (vq.config, shown))
    before = state.trees["p"]["codebook"]
    assert b["count"].sum() == vq.config.train.batch * 4  # codes of a sample
    for name in before:
        np.testing.assert_allclose(a[name], 0.95 * before[name] + 0.05 * b[name], rtol=1e-5, atol=1e-6)
    assert set(state.trees["ema"]) == {"encoder", "decoder", "discriminator"}


def test_a_turn_that_begins_later_counts_its_own_updates():
    state, measured = run(vq, 7)
    assert state.updates == {"encoder": 7, "decoder": 7, "codebook": 7, "discriminator": 4}
    assert ["Discrimination.loss" in step.terms for step in measured] == [False] * 3 + [True] * 4
    first, third = State.first(vq.config).trees["p"], run(vq, 3)[0].trees["p"]
    assert all(
        np.array_equal(a, b)
        for a, b in zip(flatten(first["discriminator"]).values(), flatten(third["discriminator"]).values(), strict=True)
    )


def test_the_adversary_sees_what_the_first_turn_made():
    """Its gradient is that of the weights after the first turn, not of those before the step."""
    state, _ = run(vq, 4)
    after, measured = checks.trained(vq.config, vq.data, state, 1)
    nets = {n: models.Network(c.model, after.state().trees["p"][n]) for n, c in vq.config.networks.items()}
    nets["discriminator"] = nets["discriminator"]._replace(p=state.trees["p"]["discriminator"])
    batch = checks.batch_at(vq.config, vq.data, 5)
    terms, _ = vq.Discrimination().loss_and_gradient(checks.REFERENCE, nets, batch, Key(0, 5, 0, 32))
    assert measured[0].terms["Discrimination.loss"] == pytest.approx(terms["loss"].mean(), rel=1e-6)


def test_a_target_follows_its_network(teacher):
    config = consistency.config(teacher)
    student = load_state(teacher)[1].trees["ema"]["denoiser"]
    state = State.first(config, {"denoiser": tree_map(np.copy, student)})
    worker = trainer(config, state)
    worker.step(checks.batch_at(config, consistency.data, 1))
    p = worker.state().trees["p"]
    expected = tree_map(lambda a, b: 0.95 * a + 0.05 * b, state.trees["p"]["target"], p["denoiser"])
    for path, leaf in flatten(p["target"]).items():
        np.testing.assert_allclose(leaf, flatten(expected)[path], rtol=1e-6, atol=1e-8)


def test_one_step_of_a_consistency_model_is_nearer_to_the_data_than_one_of_its_teacher(teacher):
    config = consistency.config(teacher)
    start = {"denoiser": tree_map(np.copy, load_state(teacher)[1].trees["ema"]["denoiser"])}
    worker, _ = checks.trained(config, consistency.data, State.first(config, start), 200)
    noise = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    T = np.full(200, config.schedule.T)

    def away(p):
        net = models.Network(consistency.MODEL, p)
        x, _ = consistency.consistent(checks.REFERENCE, net, noise, T)
        return np.sqrt(((x[:, None] - rows.CENTRES) ** 2).sum(-1).min(1)).mean()

    assert away(worker.state().trees["ema"]["denoiser"]) < 0.9 * away(start["denoiser"])


def test_a_memory_changes_what_is_drawn():
    """t is uniform until each has its losses; then those with the larger losses come oftener, and the gradient stays what it
    is on average."""
    state, measured = run(importance)
    objective, memory = importance.config.objective, state.memory["Denoising"]
    assert memory["count"].min() == HISTORY
    p = step_probability(memory["losses"], memory["count"])
    assert p.sum() == pytest.approx(1)
    order = np.argsort((memory["losses"].astype(np.float64) ** 2).mean(1))
    assert np.array_equal(np.argsort(p), order)
    assert p.max() > 2 * p.min()
    first = objective.remember()
    assert np.array_equal(step_probability(first["losses"], first["count"]), np.full(20, 1 / 20))
    key = Key(0, 1, 0, 20000)
    t = objective.draw_t(checks.REFERENCE, 20000, key, memory)
    np.testing.assert_allclose(np.bincount(t, minlength=21)[1:] / 20000, p, atol=0.012)
    assert measured[0].terms["unweighted"] == pytest.approx(measured[0].terms["loss"], rel=1e-5)


def test_a_learned_schedule_stays_one():
    """Between its ends it rises from 0 to 1, and its slope is that of the rise; both the inside and the ends have moved."""
    system = variational_diffusion.ALONE["vdm"]
    state, _ = run(system)
    gamma = models.Network(system.config.networks["gamma"].model, state.trees["p"]["gamma"])
    y = models.predict(checks.REFERENCE, gamma, {"t": np.linspace(0, 1, 101, dtype=np.float32)})
    assert (y["f"][0], y["f"][-1]) == (0, pytest.approx(1, abs=1e-6))
    assert (np.diff(y["f"]) > 0).all()
    assert np.trapezoid(y["slope"], dx=0.01) == pytest.approx(1, abs=1e-3)
    before = State.first(system.config).trees["p"]
    assert np.abs(before["gamma"]["weight"] - state.trees["p"]["gamma"]["weight"]).max() > 0.05
    assert np.abs(before["ends"]["weight"] - state.trees["p"]["ends"]["weight"]).min() > 0.001


def test_first_values_may_be_an_array():
    state = State.first(learned_beta.config)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-state.trees["p"]["beta"]["weight"][:, 0])), learned_beta.FIRST, rtol=1e-6
    )


def test_a_learned_beta_lowers_the_bound():
    """Alone, with a denoiser that stands still: over all t, of the same points and noise before and after."""
    networks = learned_beta.config.networks
    still = replace(networks["denoiser"], rule=replace(networks["denoiser"].rule, learning_rate=0.0))
    config = replace(learned_beta.config, networks=networks | {"denoiser": still})
    begun, _ = run(learned_beta, 50)
    learned = checks.trained(config, learned_beta.data, begun, 100)[0].state()
    t = np.repeat(np.arange(2, learned_beta.T + 1), 64)
    x0 = learned_beta.data.entries["x"][np.arange(len(t)) % 512]
    eps = np.random.default_rng(0).standard_normal(x0.shape).astype(np.float32)
    batch = {"x": x0, "t": t, "row": t - 2, "end": np.full_like(t, learned_beta.T - 2), "eps": eps}
    bounds = []
    for state in (begun, learned):
        nets = {n: models.Network(c.model, state.trees["p"][n]) for n, c in networks.items()}
        terms, _ = config.objective.loss_and_gradient(checks.REFERENCE, nets, batch, Key(0, 1, 0, len(t)))
        bounds.append(terms["loss"].mean())
    assert bounds[1] < bounds[0]


def test_codes_continue_a_caption():
    state, _ = run(tokens)
    net = models.Network(tokens.config.networks["transformer"].model, state.trees["ema"]["transformer"])
    asked = np.unique(rows.CAPTIONS, axis=0)
    line = np.concatenate([np.full((len(asked), 1), tokens.BEGIN), asked], 1)
    for _ in range(3):  # the codes that follow from the caption
        logits = models.predict(checks.REFERENCE, net, {"tokens": line})
        line = np.concatenate([line, logits[:, -1].argmax(-1)[:, None]], 1)
    expected = 10 + np.stack([asked[:, 0], asked[:, 1], (asked[:, 0] + asked[:, 1]) % 4], 1)
    assert (line[:, 4:] == expected).mean() >= 0.9


def test_a_token_sees_none_after_it():
    net = checks.networks_of(tokens.config, State.first(tokens.config))["transformer"]
    line = np.array([[18, 1, 5, 8, 11, 12, 13]])
    y = models.predict(checks.REFERENCE, net, {"tokens": line})
    for i in range(7):
        other = line.copy()
        other[:, i] = 9
        z = models.predict(checks.REFERENCE, net, {"tokens": other})
        assert np.array_equal(z[:, :i], y[:, :i])
        assert not np.array_equal(z[:, i], y[:, i])


def test_a_caption_is_found_among_all():
    state, _ = run(contrastive)
    nets = {n: models.Network(c.model, state.trees["ema"][n]) for n, c in contrastive.config.networks.items()}
    asked = np.unique(rows.CAPTIONS, axis=0)
    x = contrastive.data.entries["x"][:128]
    u, _, _ = contrastive.Contrastive().embed(checks.REFERENCE, nets, {"x": x, "tokens": rows.CAPTIONS[:128]})
    _, v, _ = contrastive.Contrastive().embed(checks.REFERENCE, nets, {"x": x[:32], "tokens": asked})
    found = asked[(u @ v.T).argmax(1)]
    assert (found == rows.CAPTIONS[:128]).all(1).mean() >= 0.6  # by chance 0.03
