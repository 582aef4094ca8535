"""Several networks, and what an objective of a user asks for, in the captured step of the CUDA engine, on the emulator."""

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import toy_networks  # which makes two networks known
from emulator import Emulator
from states import assert_goes_on

from refdiff import TrainingError
from refdiff.config import Config, NetworkConfig, RuleConfig, TrainConfig, register_rule
from refdiff.models import Input, backward, flatten, forward, predict
from refdiff.objectives import Denoising, Objective, register_objective
from refdiff.testing.measures import relative_error
from refdiff.training import State, save_state, train_step
from refdiff.training.state import TREES
from refdiff.training.trainers.cuda import CUDATrainer, check_supported, entries_of, plan
from refdiff.training.trainers.reference import ReferenceTrainer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
TRAIN = TrainConfig(steps=20, batch=4, learning_rate=1e-2, warmup=2)


@dataclass(frozen=True)
class Distillation(Objective):
    """|student(x + eps) - teacher(x)|^2, the teacher frozen; a second term measures how large what it says is."""

    def draw(self, engine, data, key, memory):
        one = engine.columns(ONE, data["step"])[0]
        eps = engine.normal(key("eps"), data["x"].shape[0], data["x"].shape[1:])
        return {"clean": data["x"], "x": engine.affine(one, data["x"], one, eps)}

    def loss_and_gradient(self, engine, networks, batch, key):
        target = predict(engine, networks["teacher"], {"x": batch["clean"]})
        y, saved = forward(engine, networks["denoiser"], batch, key.under("denoiser"))
        loss, of_loss = engine.squared_error(y, target)
        size, _ = engine.squared_error(target, batch["goal"] if "goal" in batch else batch["clean"])
        _, g = backward(engine, networks["denoiser"], engine.squared_error_backward(1 / key.total, of_loss), saved)
        return {"loss": loss, "size": size}, {"denoiser": g}


ONE = np.ones((1, 1))
ONE.flags.writeable = False
register_objective("distillation", Distillation)


def text_to_points(dtype="float32", shards=1):
    """A denoiser told what a text encoder says, both trained in one step, each at a rate of its own."""
    return Config(
        networks={
            "denoiser": NetworkConfig(toy_networks.ToyDenoiser()),
            "text": NetworkConfig(
                toy_networks.ToyText(), RuleConfig(learning_rate=3e-3, betas=(0.8, 0.9), max_grad_norm=0.05, ema_decay=0.5)
            ),
        },
        objective=Denoising(
            trains=("denoiser", "text"), encoders=(("context", "text"),), null=(("tokens", 4, 0.3),), bins=0
        ),
        train=replace(TRAIN, shards=shards), engine="cuda" if dtype == "bfloat16" else "reference", dtype=dtype,
    )  # fmt: skip


def batch(i, n=4):
    rng = np.random.default_rng(i)
    return {"x": rng.uniform(-1, 1, (n, 6)).astype(np.float32), "tokens": rng.integers(0, 4, n)}


def whole(tree):
    return np.concatenate([leaf.ravel() for leaf in flatten(tree).values()])


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_networks_in_one_step(dtype, shards):
    """Each has an optimiser of its own; the second learns through what the first is told."""
    config, exact = text_to_points(dtype, shards), text_to_points(shards=shards)
    state = State.first(exact)
    worker = CUDATrainer(config, state, Emulator())
    for i in range(4):
        actual = worker.step(batch(i))
        state, expected = train_step(exact, state, batch(i))
        tolerance = 1e-4 if dtype == "float32" else 2e-2
        assert actual.terms == pytest.approx(expected.terms, rel=tolerance)
        assert actual.norms == pytest.approx(expected.norms, rel=2 * tolerance)
        assert actual.learning_rates == pytest.approx(expected.learning_rates, rel=1e-6)
    assert expected.norms["text"] > 0.05, "clipped"
    actual = worker.state()
    assert actual.updates == state.updates == {"denoiser": 4, "text": 4}
    for tree in TREES:
        assert actual.trees[tree].keys() == {"denoiser", "text"}
        for name, expected in state.trees[tree].items():
            error = relative_error(whole(actual.trees[tree][name]), whole(expected))
            assert error <= (1e-4 if dtype == "float32" else 1.6e-2), (tree, name)


def test_two_networks_go_on_as_if_they_had_never_stopped():
    config = text_to_points(shards=2)
    assert_goes_on(lambda state, *order: CUDATrainer(config, state, Emulator(*order)), State.first(config), batch)


@pytest.mark.parametrize("late", [False, True])
def test_a_step_that_is_not_finite_writes_nothing_in_any_network(late):
    config = text_to_points()
    worker = CUDATrainer(config, State.first(config), Emulator())
    for i in range(3):
        worker.step(batch(i))
    before, bad = worker.state(), batch(3) | {"x": np.full((4, 6), 1e30, np.float32)}
    worker.step(bad, wait=False)
    with pytest.raises(TrainingError, match=r"step 4: expected a finite loss and gradient, got .* of text"):
        worker.step(batch(4)) if late else worker.state()
    after = worker.state()
    assert after.step == 3
    a, b = flatten(before.trees), flatten(after.trees)
    assert all(np.array_equal(a[k], b[k]) for k in a)


@dataclass(frozen=True)
class Boosted(Objective):
    """A denoiser and its text encoder, one gradient of which is multiplied by an entry: the loss knows nothing of it."""

    trains: tuple[str, ...] = ("denoiser", "text")

    def draw(self, engine, data, key, memory):
        return text_to_points().objective.draw(engine, data, key, memory)

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = text_to_points().objective.loss_and_gradient(engine, networks, batch, key)
        bias, boost = g["text"]["scale"]["bias"], batch["boost"]
        g["text"]["scale"]["bias"] = engine.affine(boost, bias, boost, bias)
        return terms, g


register_objective("boosted", Boosted)


def test_a_gradient_that_is_not_finite_in_the_last_network_stops_the_first_too():
    config = replace(text_to_points(), objective=Boosted())
    inputs = {"x": Input((6,)), "tokens": Input((), "int"), "boost": Input()}
    worker = CUDATrainer(config, State.first(config), Emulator(), inputs=inputs)
    for i in range(3):
        worker.step(batch(i) | {"boost": np.full(4, 0.5, np.float32)})
    before = worker.state()
    with pytest.raises(
        TrainingError, match=r"step 4: .*got loss \d.* gradient norm \d.* of denoiser, .* (inf|nan) of text"
    ):
        worker.step(batch(3) | {"boost": np.full(4, 1e38, np.float32)})
    a, b = flatten(before.trees), flatten(worker.state().trees)
    assert all(np.array_equal(a[k], b[k]) for k in a)


def distillation(tmp_path, dtype="float32"):
    """A frozen teacher, of a run in a folder."""
    plain = toy_networks.ToyDenoiser(told=False)
    teacher = Config(networks={"denoiser": NetworkConfig(plain)}, train=TRAIN, seed=5)
    if not tmp_path.joinpath("checkpoint.safetensors").exists():
        save_state(tmp_path / "checkpoint.safetensors", teacher, State.first(teacher))
    networks = {
        "denoiser": NetworkConfig(plain),
        "teacher": NetworkConfig(plain, RuleConfig("frozen", run=str(tmp_path), of="denoiser")),
    }
    engine = "cuda" if dtype == "bfloat16" else "reference"
    return Config(networks=networks, objective=Distillation(), train=TRAIN, engine=engine, dtype=dtype)


INPUTS = {"x": Input((6,)), "step": Input((), "int")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_frozen_network_and_an_objective_of_a_user(tmp_path, dtype):
    """What it reads beside the networks' entries comes from the data too; its second term is measured as the first is."""
    config, exact = distillation(tmp_path, dtype), distillation(tmp_path)
    worker = CUDATrainer(config, State.first(config), Emulator(), inputs=INPUTS)
    reference = ReferenceTrainer(exact, State.first(exact))
    for i in range(3):
        data = {"x": batch(i)["x"], "step": np.zeros(4, np.int64)}
        actual, expected = worker.step(data), reference.step(data)
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5 if dtype == "float32" else 2e-2)
    assert actual.terms.keys() == {"loss", "size"}
    actual, expected = worker.state(), reference.state()
    assert actual.digests == expected.digests != {}
    assert actual.trees["p"].keys() == {"denoiser"}
    bound = 1e-4 if dtype == "float32" else 1.6e-2
    assert relative_error(whole(actual.trees["m"]), whole(expected.trees["m"])) <= bound
    needed = plan(config, INPUTS).nbytes
    assert worker.arena.extent <= needed <= worker.arena.reserved < worker.arena.extent + 4096


def test_a_second_term_that_is_not_finite_stops_the_step_too(tmp_path):
    """As on the host: every term counts, not only what is minimised."""
    config = distillation(tmp_path)
    goal = {"goal": Input((6,))}

    @dataclass(frozen=True)
    class Measured(Distillation):
        def draw(self, engine, data, key, memory):
            return super().draw(engine, data, key, memory) | {"goal": data["goal"]}

    register_objective("measured", Measured)
    config = replace(config, objective=Measured())
    worker = CUDATrainer(config, State.first(config), Emulator(), inputs=INPUTS | goal)
    data = {"x": batch(0)["x"], "step": np.zeros(4, np.int64), "goal": np.zeros((4, 6), np.float32)}
    worker.step(data)
    before = worker.state()
    with pytest.raises(TrainingError, match=r"step 2: .*size (inf|nan)"):
        worker.step(data | {"goal": np.full((4, 6), 1e30, np.float32)})
    assert all(np.array_equal(a, flatten(worker.state().trees)[k]) for k, a in flatten(before.trees).items())


def test_which_entries_go_to_the_device(tmp_path):
    """Of the data, what the networks read; for an objective of a user all of it."""
    data = {"x": Input((6,)), "tokens": Input((), "int"), "label": Input((), "int"), "step": Input((), "int")}
    config = text_to_points()
    assert entries_of(config) == {"x": ((4, 6), np.float32), "tokens": ((4,), np.int32)}
    assert entries_of(config, data) == entries_of(config)
    assert entries_of(distillation(tmp_path), data).keys() == data.keys()


class Gathers(Objective):
    def gather(self, engine, networks, batch, key):
        return {}


class Takes(Objective):
    def turns(self, step):
        return (self, self)


def update(rule, p, g, m, v, count, rate):
    return p - rate * g, m, v


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (Gathers(), "objective: expected one without `gather` on engine cuda, got Gathers; take"),
        (Takes(), "objective: expected one without `turns` on engine cuda, got Takes; take"),
    ],
)
def test_an_objective_that_this_trainer_cannot_serve_is_refused(objective, match):
    with pytest.raises(ValueError, match=match) as refusal:
        check_supported(replace(text_to_points(), objective=replace(objective, trains=("denoiser", "text"))))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "rule", "match"),
    [
        (
            "book",
            RuleConfig("average"),
            "networks.book.rule: expected adamw or frozen on engine cuda, got average; take",
        ),
        ("target", RuleConfig("follow", of="text"), "networks.target.rule: .* got follow; take"),
        ("text", RuleConfig("plain_descent"), "networks.text.rule: .* got plain_descent; take"),
        (
            "idle",
            RuleConfig(),
            "networks.idle: expected a network that Denoising trains on engine cuda, got one that it",
        ),
    ],
)
def test_a_rule_that_this_trainer_cannot_serve_is_refused(name, rule, match):
    register_rule("plain_descent", update)
    config = text_to_points()
    networks = config.networks | {name: NetworkConfig(toy_networks.ToyText(), rule)}
    with pytest.raises(ValueError, match=match) as refusal:
        CUDATrainer(replace(config, networks=networks), None, Emulator())
    assert "\n" not in str(refusal.value)
    assert 'engine="cpu"' in str(refusal.value)


def test_a_state_of_another_number_of_updates_is_refused():
    """As a run of several turns leaves it: this trainer counts an update a step."""
    config = text_to_points()
    state = State.first(config)
    state.updates["text"] = 2
    with pytest.raises(
        ValueError, match=r"state: expected networks updated once a step, .*'text': 0.*, got .*'text': 2"
    ):
        CUDATrainer(config, state, Emulator())
