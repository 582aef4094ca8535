"""Rules: how each network moves, on the reference and the cpu engine, against its definition worked out here."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from contract_networks import Codebook, Pairs, Regress, Remembers, Second, Turns, pairs, run_of, sign_descent
from states import bits

from refdiff import TrainingError
from refdiff.config import RuleConfig, register_rule
from refdiff.models import flatten
from refdiff.training import State, learning_rate, train, trainer


@pytest.fixture(params=["reference", "cpu"])
def engine(request):
    return request.param


def run(config, steps=3):
    """The states before and after each step, and what the steps measured."""
    worker = trainer(config, State.first(config))
    states, measured = [worker.state()], []
    for i in range(steps):
        measured.append(worker.step(pairs(8, 8 * i)))
        states.append(worker.state())
    return states, measured


def near(actual, expected, bound=1e-5):
    actual, expected = flatten(actual), flatten(expected)
    assert actual.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(actual[name], leaf, rtol=bound, atol=bound * np.abs(leaf).max(), err_msg=name)


def gradient(p, batch):
    """Of the mean of |x W + b - target|^2 / 3 over the samples, in float64."""
    x, target = batch["x"].astype(float), batch["target"].astype(float)
    d = 2 / target.size * (x @ p["weight"] + p["bias"] - target)
    return {"weight": x.T @ d, "bias": d.sum(0)}


def test_adamw_with_numbers_of_its_own(engine):
    rule = RuleConfig(
        learning_rate=0.02, betas=(0.5, 0.75), weight_decay=0.3, max_grad_norm=0.1, ema_decay=0.05
    )  # fmt: skip
    config = run_of(Regress(), engine, rules={"net": rule}, warmup=2, weight_decay=9.0, ema_decay=0.9)
    states, measured = run(config)
    p = {name: leaf.astype(float) for name, leaf in states[0].trees["p"]["net"].items()}
    m, v, ema = (
        {name: np.zeros_like(leaf) for name, leaf in p.items()},
        {name: np.zeros_like(leaf) for name, leaf in p.items()},
        dict(p),
    )
    for step in range(1, 4):
        g = gradient(p, pairs(8, 8 * (step - 1)))
        norm = np.sqrt(sum((leaf**2).sum() for leaf in g.values()))
        rate = learning_rate(step, 20, 0.02, 2)
        assert measured[step - 1].norms == pytest.approx({"net": norm}, rel=1e-5)
        assert measured[step - 1].learning_rates == {"net": rate}
        for name, leaf in g.items():
            clipped = leaf * min(1, 0.1 / norm)
            m[name] = 0.5 * m[name] + 0.5 * clipped
            v[name] = 0.75 * v[name] + 0.25 * clipped**2
            update = m[name] / (1 - 0.5**step) / (np.sqrt(v[name] / (1 - 0.75**step)) + 1e-8)
            p[name] = p[name] - rate * (update + 0.3 * p[name])
            ema[name] = 0.05 * ema[name] + 0.95 * p[name]
        assert norm > 0.1
    for tree, expected in (("p", p), ("m", m), ("v", v), ("ema", ema)):
        near(states[-1].trees[tree]["net"], expected)
    assert states[-1].updates == {"net": 3}


def test_two_networks_have_a_rate_each_and_a_norm_each(engine, tmp_path):
    rules = {"net": RuleConfig(learning_rate=0.0), "second": RuleConfig(learning_rate=0.5)}
    config = run_of(Turns(), engine, ("net", "second"), rules, decay="constant", steps=4, log_every=1)
    states, measured = run(config, 4)
    assert bits(states[4])["p/net/weight"] == bits(states[0])["p/net/weight"]
    assert bits(states[4])["p/second/weight"] != bits(states[0])["p/second/weight"]
    assert [step.learning_rates for step in measured] == [{"net": 0.0}, {"net": 0.0, "second": 0.5}] * 2
    assert [set(step.norms) for step in measured] == [{"net"}, {"net", "second"}] * 2
    assert measured[1].gradient_norm == pytest.approx(np.hypot(*measured[1].norms.values()))
    assert measured[1].learning_rate == 0.5
    train(config, tmp_path, progress=False, data=Pairs())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss", "gradient_norm", "learning_rate", "Regress.loss", "Second.loss"} < set(lines[1])
    assert {"gradient_norm.net", "gradient_norm.second"} < set(lines[1])
    assert "Second.loss" not in lines[2]


def test_updates_are_counted_for_each_network(engine):
    """The second network moves every other step: Adam's correction counts its own updates."""
    config = run_of(Turns(), engine, ("net", "second"), decay="constant", max_grad_norm=0.0)
    states, _ = run(config, 5)
    assert [state.updates for state in states[1:]] == [
        {"net": i, "second": i // 2} for i in range(1, 6)
    ]  # fmt: skip
    for i in (1, 3, 5):  # not moved: p, m and v as they were
        before, after = bits(states[i - 1]), bits(states[i])
        assert all(before[f"{tree}/second/weight"] == after[f"{tree}/second/weight"] for tree in ("p", "m", "v"))
    # Its first update has the size of the rate whatever the gradient, as Adam's first has.
    moved = states[2].trees["p"]["second"]["weight"] - states[1].trees["p"]["second"]["weight"]
    np.testing.assert_allclose(np.abs(moved), 0.05, rtol=1e-3)


def test_the_average_of_a_network_that_did_not_move_moves_on(engine):
    config = run_of(Turns(), engine, ("net", "second"), ema_decay=0.9, decay="constant")
    states, _ = run(config, 3)
    p = states[2].trees["p"]["second"]["weight"]
    d = (1 + 3) / (10 + 3)
    expected = d * states[2].trees["ema"]["second"]["weight"] + (1 - d) * p
    np.testing.assert_allclose(states[3].trees["ema"]["second"]["weight"], expected, rtol=1e-5)


def test_two_turns_are_two_steps_one_after_another(engine):
    """The terms are named after their turns, and the second turn finds what the first one left."""
    config = run_of(Turns(), engine, ("net", "second"))
    states, measured = run(config, 2)
    assert set(measured[0].terms) == {"loss"}
    assert set(measured[1].terms) == {"Regress.loss", "Second.loss"}
    assert measured[1].loss == measured[1].terms["Regress.loss"]
    alone = run_of(Second(), engine, ("second",))
    assert states[0].trees["p"]["second"]["weight"].shape == (3, 3)
    first = State.first(alone)
    assert bits(first)["p/second/weight"] == bits(states[0])["p/second/weight"]
    step = trainer(alone, replace(first, step=1)).step(pairs(8, 8))
    assert measured[1].terms["Second.loss"] == pytest.approx(step.loss, rel=1e-6)


def test_average_moves_to_the_gradient(engine):
    """A codebook: p <- d p + (1 - d) g; it has no moments, no moving average, no norm and no rate."""
    rules = {"book": RuleConfig(rule="average", decay=0.75)}
    states, measured = run(run_of(Codebook(), engine, ("net", "book"), rules), 1)
    net, before = (states[0].trees["p"][name] for name in ("net", "book"))
    after, batch = states[1].trees["p"]["book"], pairs()
    mean = (batch["x"] @ net["weight"] + net["bias"]).mean(0)
    np.testing.assert_allclose(after["bias"], 0.75 * before["bias"] + 0.25 * mean, rtol=1e-5)
    assert all(set(states[1].trees[tree]) == {"net"} for tree in ("ema", "m", "v"))
    assert set(measured[0].norms) == set(measured[0].learning_rates) == {"net"}
    assert set(measured[0].terms) == {"loss", "size"}
    assert states[1].updates == {"net": 1, "book": 1}


def test_follow_moves_to_what_the_other_is_after_the_step(engine):
    rules = {"target": RuleConfig(rule="follow", of="net", decay=0.9)}
    states, _ = run(run_of(Regress(), engine, ("net", "target"), rules), 3)
    assert bits(states[0])["p/target/weight"] == bits(states[0])["p/net/weight"]
    for before, after in pairwise(states):
        expected = 0.9 * before.trees["p"]["target"]["weight"] + 0.1 * after.trees["p"]["net"]["weight"]
        np.testing.assert_allclose(after.trees["p"]["target"]["weight"], expected, rtol=1e-5)
    assert states[-1].updates["target"] == 0
    assert "target" not in states[-1].trees["ema"]


def test_a_users_rule(engine):
    """Its gradient is clipped, its numbers are those of [train], its results are rounded to float32, its average moves."""
    config = run_of(
        Regress(), engine, rules={"net": RuleConfig(rule="test_sign")}, weight_decay=0.5, decay="constant", ema_decay=0.0
    )  # fmt: skip
    states, measured = run(config, 2)
    p = states[0].trees["p"]["net"]
    g = gradient(p, pairs())
    near(states[1].trees["p"]["net"], {k: p[k] - 0.05 * np.sign(g[k]) - 0.025 * p[k] for k in p})
    assert (states[2].trees["m"]["net"]["bias"] == np.float32(1 + np.sqrt(2))).all()
    assert bits(states[2])["ema/net/weight"] == bits(states[2])["p/net/weight"]
    assert {leaf.dtype for leaf in flatten(states[2].trees).values()} == {np.dtype("float32")}
    assert set(measured[0].norms) == {"net"}


def test_a_users_rule_in_worker_processes(some_processes):
    results = []
    for count in (1, 2):
        some_processes(count)
        results.append([bits(s) for s in run(run_of(Regress(), "cpu", rules={"net": RuleConfig(rule="test_sign")}))[0]])
    assert results[0] == results[1]


def test_a_users_rule_that_gives_something_else_is_refused(engine):
    register_rule("test_short", short)
    config = run_of(Regress(), engine, rules={"net": RuleConfig(rule="test_short")})
    with pytest.raises(ValueError, match=r"^rule 'test_short': expected new p, m, v of shape .* each, got "):
        trainer(config, State.first(config)).step(pairs())


def short(rule, p, g, m, v, count, rate):
    return p[:1], m, v


def test_the_name_of_a_rule_is_one_rules_alone():
    register_rule("test_sign", sign_descent)
    with pytest.raises(ValueError, match=r"^name: expected one that no other rule has, got 'adamw'; known are adamw, "):
        register_rule("adamw", sign_descent)
    with pytest.raises(ValueError, match=r"^update: expected a function"):
        register_rule("test_other", None)


def test_memory_is_kept_and_read_by_the_next_draw(engine):
    states, measured = run(run_of(Remembers(), engine), 3)
    mean = 1.0
    for i, step in enumerate(measured):
        x = pairs(8, 8 * i)
        net = states[i].trees["p"]["net"]
        error = (mean * x["x"]) @ net["weight"] + net["bias"] - x["target"]
        assert step.loss == pytest.approx((error**2).mean(), rel=1e-5)
        mean = 0.5 * mean + 0.5 * step.loss
        assert states[i + 1].memory["Remembers"]["mean"] == pytest.approx(mean, rel=1e-6)
    assert states[3].memory["Remembers"]["count"] == 3


def test_a_first_turn_that_is_not_finite_writes_nothing(engine):
    config = run_of(Turns(), engine, ("net", "second"))
    worker = trainer(config, first := State.first(config))
    worker.step(pairs())
    before = bits(worker.state())
    bad = pairs() | {"target": np.full((8, 3), 1e38, np.float32)}
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"^step 2: expected a finite loss and gradient"):
        worker.step(bad)
    assert bits(worker.state()) == before
    assert bits(first)["step"] == 0


def test_half_a_step_is_never_saved(engine):
    """The second turn's weights are not finite: the first turn's have moved on the cpu engine, and nothing is as it was."""
    config = run_of(Turns(), engine, ("net", "second"))
    first = State.first(config)
    first.trees["p"]["second"]["bias"] = np.full(3, np.nan, np.float32)
    worker = trainer(config, first)
    worker.step(pairs())
    before = bits(worker.state())
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"^step 2: .*Second.loss nan, gradient norm nan$"),
    ):
        worker.step(pairs())
    if engine == "reference":
        assert bits(worker.state()) == before
        return
    for after in (worker.state, lambda: worker.step(pairs())):
        with pytest.raises(TrainingError, match=r"^step 2: half of it is done, and it cannot be kept$"):
            after()


def test_a_codebook_that_is_not_finite_writes_nothing(engine):
    config = run_of(Codebook(), engine, ("net", "book"), {"book": RuleConfig(rule="average")})
    worker = trainer(config, State.first(config))
    before = bits(worker.state())
    bad = pairs() | {"x": np.full((8, 3), 3e38, np.float32)}
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"^step 1: "):
        worker.step(bad)
    assert bits(worker.state()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": None}, r"^Regress: expected a batch with 'target', got x; "),
        ({"x": None}, r"^Regress: expected a batch with 'x', got target; "),
        ({"x": np.zeros((6, 3), "f")}, r"^data: expected entries of as many samples each, got x \(6, 3\), target \(8, 3\)$"),
        ({"x": np.float32(0)}, r"^data: expected entries of as many samples each, got x \(\), target \(8, 3\)$"),
        ({"x": None, "target": None}, r"^data: expected entries of as many samples each, got none$"),
    ],
)  # fmt: skip
def test_a_batch_that_lacks_something_is_refused(engine, change, message):
    config = run_of(Regress(), engine)
    worker = trainer(config, State.first(config))
    batch = {name: value for name, value in (pairs() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        worker.step(batch)
    assert worker.state().step == 0
    worker.step(pairs())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, r"^networks.denoiser: expected data with 'label', which it reads, got x from the batch; "),
        ({"label": np.zeros(8, "f")}, r"^networks.denoiser: expected int 'label' of shape \(\), got float of \(\) "),
        ({"label": np.zeros((8, 2), int)}, r"^networks.denoiser: expected int 'label' of shape \(\), got int of \(2,\) "),
    ],
)  # fmt: skip
def test_a_batch_that_the_denoiser_cannot_read_is_refused(small, engine, batch, message):
    config = small.changed(["model.classes=10", f"engine={engine}"])
    with pytest.raises(ValueError, match=message):
        trainer(config, State.first(config)).step({"x": np.zeros((8, 8, 8, 1), "f")} | batch)


def test_a_batch_without_names_is_refused(engine):
    config = run_of(Regress(), engine)
    with pytest.raises(ValueError, match=r"^data: expected entries by name, such as x=\.\.\., got ndarray$"):
        trainer(config, State.first(config)).step(pairs()["x"])
