"""A network, an objective, a rule and a data set of a user's own: those of docs/extending.md train, sample and resume, in
one process and in two; and each breach of what holds for them is one line."""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from documents.reading import documents, read
from documents.running import files, importing_here, registering
from helpers import ROOT, line

from refdiff import engines, models
from refdiff.cli import main
from refdiff.config import Config, NetworkConfig, register_rule
from refdiff.data import register_data
from refdiff.models import KINDS, Input, flatten, register
from refdiff.objectives import Denoising, Objective, register_objective
from refdiff.sampling import sample
from refdiff.testing.derivatives import check_backward
from refdiff.training import load_state, train, trained

NAME = "docs/extending.md"
CHANGES = ["data.source=spiral", "networks.denoiser.rule=signed", "networks.denoiser.kind=one-layer",
           "objective.kind=fading", "networks.denoiser.width=8", "train.steps=6", "train.batch=8", "train.warmup=2",
           "train.checkpoint_every=0", "sample.steps=4", "train.decay=constant"]  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The file of the page, imported; afterwards nothing of it is known."""
    monkeypatch.chdir(tmp_path)
    text = files(read(NAME, documents()[NAME])[0])["own.py"]
    (tmp_path / "own.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with importing_here(), registering():
        yield importlib.import_module("own")


@pytest.fixture
def known():
    """What a test makes known is forgotten."""
    with registering():
        yield


def bits(state):
    return {name: leaf.tobytes() for name, leaf in flatten(state.trees).items()}


def test_the_network_of_the_page_has_the_gradient_of_its_forward(own):
    config = own.OneLayer(width=6)
    rng = np.random.default_rng(0)
    p = models.tree_map(lambda a: rng.standard_normal(a.shape), models.layout(config))
    x, t = rng.standard_normal((3, 2)), np.array([1, 500, 1000])
    net, engine = models.Network(config, p), engines.get("reference")

    def forward(x, p):
        return models.forward(engine, models.Network(config, p), {"x": x, "t": t})

    def backward(dy, saved):
        dinputs, g = models.backward(engine, net, dy, saved, ("x",))
        return dinputs["x"], g

    check_backward(forward, backward, (x, p), rng, 1e-12)


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_all_four_train_sample_and_resume_to_the_bit(own, tmp_path, engine):
    config = Config.resolve("mixture", changes=[*CHANGES, f"engine={engine}", "train.shards=2"])
    assert (type(config.model), type(config.objective)) == (own.OneLayer, own.Fading)
    whole = train(config, tmp_path / "whole", progress=False)
    train(config.changed(["train.steps=3"]), tmp_path / "half", progress=False)
    resumed = train(config, tmp_path / "half", resume=True, progress=False)
    assert bits(resumed) == bits(whole)
    assert Config.resolve("digits", tmp_path / "whole" / "config.toml") == config
    loaded, state = load_state(tmp_path / "whole")
    assert (loaded, bits(state)) == (config, bits(whole))
    x = sample(trained(loaded, state), 5, progress=False)
    assert x.shape == (5, 2)
    assert np.isfinite(x).all()


def test_two_processes_make_the_steps_of_one(own, some_processes):
    """The worker process imports own.py because of what it is sent of it."""
    config = Config.resolve("mixture", changes=[*CHANGES, "engine=cpu"])
    states = []
    for count in (1, 2):
        some_processes(count)
        states.append(train(config, progress=False))
    assert bits(states[0]) == bits(states[1])
    points = [sample(trained(config, state), 5, progress=False).tobytes() for state in states]
    assert points[0] == points[1]


def test_the_rule_is_the_one_that_moves_the_weights(own):
    config = Config.resolve("mixture", changes=[*CHANGES, "engine=reference", "train.steps=1", "train.warmup=0"])
    first, last = (
        models.initialise(models.layout(config.model), 0),
        train(config, progress=False).trees["p"]["denoiser"],
    )
    rate = config.train.learning_rate
    moved = [np.abs(flatten(last)[name] - leaf).max() for name, leaf in flatten(first).items()]
    np.testing.assert_allclose(moved, rate, rtol=1e-3)
    with pytest.raises(ValueError, match=line("rule: expected adamw or frozen on engine cuda, got signed")):
        importlib.import_module("refdiff.training.trainers.cuda").check_supported(config)


def test_the_objective_is_the_one_that_is_minimised(own):
    changes = [*CHANGES, "engine=reference", "train.steps=1"]
    losses = {}
    for least in (0.5, 1.0):
        config = Config.resolve("mixture", changes=[*changes, f"objective.least={least}"])
        train(config, progress=False, on_step=lambda step, least=least: losses.update({least: step.loss}))
    assert losses[0.5] < losses[1.0]


LATE = """
import hashlib, sys
from refdiff.config import Config
from refdiff.engines.cpu.runtime import data_parallel, thread_pool
from refdiff.models import flatten
from refdiff.training import train

def digest(threads, *changes):
    thread_pool.settings.threads = threads
    config = Config.resolve("mixture", changes=["engine=cpu", "train.batch=8", "train.steps=2", *changes])
    leaves = flatten(train(config, progress=False).trees)
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves.values())).hexdigest()

data_parallel.WORTH = 0
plain = digest(2)
sys.path.insert(0, sys.argv[1])
import own
one, two = (digest(n, "networks.denoiser.rule=signed") for n in (1, 2))
print(one == two != plain)
"""


def test_a_worker_process_that_started_before_finds_a_rule_that_is_all_it_is_sent(own, tmp_path):
    done = subprocess.run([sys.executable, "-c", LATE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr[-1000:]


def test_what_stands_in_a_script_is_said_to_be_out_of_reach(tmp_path, two_processes):
    """Of another interpreter, whose __main__ the worker process does not have."""
    text = files(read(NAME, documents()[NAME])[0])["own.py"]
    steps = (
        "\nfrom refdiff.config import Config\nfrom refdiff.engines.cpu.runtime import data_parallel, thread_pool\n"
        "from refdiff.training import train\n"
        "data_parallel.WORTH, thread_pool.settings.threads = 0, 2\n"
        f"train(Config.resolve('mixture', changes={[*CHANGES, 'engine=cpu']!r}), progress=False)\n"
    )
    (tmp_path / "script.py").write_text(text + steps)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "worker process of the cpu engine does not find what it is sent: Can't get attribute 'OneLayer'" in last
    assert last.endswith(
        "define it in a module that can be imported, not in a script, or set REFDIFF_THREADS=1, which works without one"
    )


# Breaches: objectives and networks that do one thing wrong.


@dataclass(frozen=True)
class Told(models.MLPConfig):
    """Reads an entry that nobody has."""


TOLD = SimpleNamespace(**{name: getattr(models.mlp, name) for name in ("layout", "forward", "backward")},
                       inputs=lambda config: models.mlp.inputs(config) | {"colour": Input((3,))})  # fmt: skip


@dataclass(frozen=True)
class WrongTerm(Denoising):
    how: str = "mean"

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = super().loss_and_gradient(engine, networks, batch, key)
        if self.how == "mean":
            return {"loss": np.asarray(np.mean(terms["loss"]))}, g
        return {"loss": terms["loss"][:2]} if self.how == "few" else {"cost": terms["loss"]}, g


@dataclass(frozen=True)
class WrongGradient(Denoising):
    how: str = "missing"

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = super().loss_and_gradient(engine, networks, batch, key)
        own = g["denoiser"]
        if self.how == "missing":
            del own["linear_out"]["bias"]
        elif self.how == "more":
            own["linear_out"]["scale"] = own["linear_out"]["bias"]
        elif self.how == "shape":
            own["linear_out"]["bias"] = own["linear_out"]["bias"][:1]
        else:
            g = {"critic": own}
        return terms, g


@dataclass(frozen=True)
class Forgetful(Denoising):
    """Gives the network no t."""

    def draw(self, engine, data, key, memory):
        batch = super().draw(engine, data, key, memory)
        del batch["t"]
        return batch


@dataclass(frozen=True)
class TwoPlayers(Objective):
    trains: tuple[str, ...] = ("denoiser", "critic")


def broken(tmp_path, engine, *changes):
    config = Config.resolve("mixture", changes=["train.batch=8", "train.steps=2", f"engine={engine}", *changes])
    train(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "objective.how=mean",
            r"WrongTerm: expected one number a sample, \(\d,\), for the term 'loss', got shape \(\)",
        ),
        (
            "objective.how=few",
            r"WrongTerm: expected one number a sample, \(\d,\), for the term 'loss', got shape \(2,\)",
        ),
        ("objective.how=name", "WrongTerm: expected terms by name with 'loss' among them, got cost"),
    ],
)
def test_a_term_is_one_number_a_sample(known, use_threads, tmp_path, engine, change, message):
    use_threads(1)
    register_objective("wrong", WrongTerm)
    with pytest.raises(ValueError, match=line(message)):
        broken(tmp_path, engine, "objective.kind=wrong", change)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"expected linear_out/bias of shape \(2,\), got none"),
        ("more", r"expected linear_out/scale of shape none, got \(2,\)"),
        ("shape", r"expected linear_out/bias of shape \(2,\), got \(1,\)"),
        ("network", "WrongGradient: expected gradients of denoiser, got critic"),
    ],
)
def test_a_gradient_has_the_keys_and_shapes_of_the_parameters(known, use_threads, tmp_path, engine, how, message):
    use_threads(1)
    register_objective("wrong", WrongGradient)
    with pytest.raises(ValueError, match=line(message)):
        broken(tmp_path, engine, "objective.kind=wrong", f"objective.how={how}")


@dataclass(frozen=True)
class WrongAnswer(Denoising):
    """Gives something else where the contract says what."""

    how: str = "draw"

    def reads(self, networks):
        return {"x": (2,)} if self.how == "reads" else super().reads(networks)

    def turns(self, step):
        return () if self.how == "turns" else (self,)

    def draw(self, engine, data, key, memory):
        return None if self.how == "draw" else super().draw(engine, data, key, memory)

    def loss_and_gradient(self, engine, networks, batch, key):
        terms, g = super().loss_and_gradient(engine, networks, batch, key)
        if self.how == "float":
            return {"loss": 1.0}, g
        if self.how == "none":
            return terms, {"denoiser": g["denoiser"] | {"linear_out": {"weight": None, "bias": None}}}
        return terms


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("draw", "WrongAnswer.draw: expected a batch, entries by name, got NoneType; return a dictionary"),
        ("alone", "WrongAnswer.loss_and_gradient: expected terms and gradients, got dict; return both"),
        ("float", r"WrongAnswer: expected one number a sample, \(\d,\), for the term 'loss', got shape \(\)"),
        (
            "none",
            r"WrongAnswer: the gradient of denoiser: expected linear_out/(weight|bias) of shape .*, got (none|\(\)); ",
        ),
        ("reads", r"WrongAnswer.reads: expected a refdiff.models.Input for the entry 'x', got \(2,\); write"),
        ("turns", r"WrongAnswer.turns: expected at least one objective a step, got none; give \(self,\)"),
    ],
)
def test_an_objective_that_answers_something_else_is_named(known, use_threads, tmp_path, engine, how, message):
    use_threads(1)
    register_objective("wrong", WrongAnswer)
    with pytest.raises(ValueError, match=line(message)):
        broken(tmp_path, engine, "objective.kind=wrong", f"objective.how={how}")


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_a_breach_in_the_first_step_leaves_the_former_run_as_it_was(known, use_threads, tmp_path, engine):
    use_threads(1)
    register_objective("wrong", WrongAnswer)
    settings = ["train.batch=8", "train.steps=1", "networks.denoiser.width=8", f"engine={engine}"]
    config = Config.resolve("mixture", changes=settings)
    train(config, tmp_path / "run", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=line(r"WrongAnswer: expected one number a sample")):
        train(
            config.changed(["objective.kind=wrong", "objective.how=float"]),
            tmp_path / "run",
            force=True,
            progress=False,
        )
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    train(config.changed(["seed=1"]), tmp_path / "run", force=True, progress=False)
    assert load_state(tmp_path / "run")[0].seed == 1
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1


def test_data_without_a_held_out_split_are_not_evaluated(own, tmp_path, capsys):
    small = ["--quiet", "--preset", "mixture", "--set=train.steps=1", "--set=train.batch=8", "--set=data.source=spiral"]
    assert main(["train", "--out", str(tmp_path / "run"), *small]) == 0
    assert main(["eval", str(tmp_path / "run"), "--n", "4"]) == 2
    assert "error: --data: expected data with a split that is held out, got spiral; give" in capsys.readouterr().err


def test_data_without_samples_or_inputs_are_named(known, tmp_path):
    class Empty:
        inputs = {"x": Input((2,))}  # noqa: RUF012

        def __len__(self):
            return 0

    class Bare(Empty):
        inputs = {"x": (2,)}  # noqa: RUF012

        def __len__(self):
            return 5

    register_data("empty", Empty)
    register_data("bare", Bare)
    with pytest.raises(
        ValueError, match=line("data.source: expected at least one sample, got none from empty; choose")
    ):
        broken(tmp_path, "reference", "data.source=empty")
    with pytest.raises(
        ValueError, match=line(r"bare: expected a refdiff.models.Input for the entry 'x', got \(2,\); ")
    ):
        broken(tmp_path, "reference", "data.source=bare")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", " ", 3, None])
def test_a_name_is_a_word(known, name):
    for make in (
        lambda: register(name, Told, TOLD),
        lambda: register_objective(name, Forgetful),
        lambda: register_rule(name, lambda *arguments: arguments),
        lambda: register_data(name, dict),
    ):
        with pytest.raises(ValueError, match=line(f"name: expected a word, as a configuration says it, got {name!r}")):
            make()


def test_kind_names_what_is_registered_and_nothing_in_it(known):
    @dataclass(frozen=True)
    class Kind:
        kind: str = "a"

    @dataclass(frozen=True)
    class KindOf(Denoising):
        kind: str = "a"

    with pytest.raises(
        ValueError, match=line("config: expected no field 'kind' in Kind, since that names the network")
    ):
        register("kind", Kind, TOLD)
    with pytest.raises(
        ValueError, match=line("cls: expected no field 'kind' in KindOf, since that names the objective")
    ):
        register_objective("kind", KindOf)


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_an_input_that_the_model_lacks_is_named(known, use_threads, tmp_path, engine):
    use_threads(1)
    register("told", Told, TOLD)
    with pytest.raises(ValueError, match=line("networks.denoiser: .* 'colour', which it reads, got x from mixture")):
        broken(tmp_path, engine, "networks.denoiser.kind=told")
    assert not (tmp_path / "run").exists()  # nothing was begun
    register_objective("forgetful", Forgetful)
    with pytest.raises(
        ValueError, match=line("inputs: expected x, t, which MLPConfig reads, got x, target; t is missing")
    ):
        broken(tmp_path, engine, "objective.kind=forgetful")


def test_an_entry_of_another_shape_or_kind_is_refused(known, tmp_path):
    class Wide:
        inputs = {"x": Input((2,)), "colour": Input((4,)), "label": Input()}  # noqa: RUF012

        def __len__(self):
            return 5

    register_data("wide", Wide)
    register("told", Told, TOLD)
    with pytest.raises(
        ValueError, match=line(r"expected float 'colour' of shape \(3,\), got float of \(4,\) from wide")
    ):
        broken(tmp_path, "cpu", "networks.denoiser.kind=told", "data.source=wide")
    with pytest.raises(ValueError, match=line(r"expected int 'label' of shape \(\), got float of \(\) from wide")):
        broken(tmp_path, "cpu", "networks.denoiser.classes=3", "data.source=wide")
    with pytest.raises(
        ValueError, match=line("data.flip: expected false, since wide varies its samples itself, got true")
    ):
        broken(tmp_path, "cpu", "data.source=wide", "data.flip=true")
    assert not (tmp_path / "run").exists()


def test_one_name_is_one_thing(known):
    with pytest.raises(
        ValueError, match=line("name: expected one that no other network has, got 'unet', which is UNetConfig")
    ):
        register("unet", Told, TOLD)
    with pytest.raises(ValueError, match=line("no other objective has, got 'denoising', which is Denoising")):
        register_objective("denoising", WrongTerm)
    with pytest.raises(ValueError, match=line("no other rule has, got 'adamw'; known are adamw")):
        register_rule("adamw", lambda *a: a)
    with pytest.raises(ValueError, match=line("no other data set has, got 'digits'; known are digits")):
        register_data("digits", lambda: None)
    register("told", Told, TOLD)
    register("told", Told, TOLD)  # the same thing twice, as a module that is imported again does
    assert KINDS["told"] is Told


def test_what_is_no_network_objective_rule_or_data_set_is_refused(known):
    with pytest.raises(ValueError, match=line("config: expected a frozen dataclass for the network 'a', got")):
        register("a", int, TOLD)
    with pytest.raises(
        ValueError, match=line("module: expected the functions .* for the network 'a', got none named back")
    ):
        register("a", Told, SimpleNamespace(inputs=len, layout=len, forward=len))
    with pytest.raises(ValueError, match=line("cls: expected a frozen dataclass derived from Objective for 'a', got")):
        register_objective("a", Told)
    with pytest.raises(ValueError, match=line("update: expected a function of .*, got 3")):
        register_rule("a", 3)
    with pytest.raises(ValueError, match=line("cls: expected something that makes the data set 'a'")):
        register_data("a", 3)


def test_what_was_never_registered_is_refused_before_a_run_begins(tmp_path):
    config = Config(objective=WrongTerm())
    with pytest.raises(
        ValueError, match=line("objective: expected one of denoising.*, got WrongTerm; .*register_objective")
    ):
        train(config, tmp_path / "run", progress=False)
    with pytest.raises(
        ValueError, match=line("config: expected one of UNetConfig, MLPConfig.*, got Told; .*models.register")
    ):
        train(Config(networks={"denoiser": NetworkConfig(Told())}, objective=Denoising(bins=0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.kind=players"], r"networks: expected 'critic', which TwoPlayers trains, got denoiser; add"),
        (["networks.critic.rule=frozen"], "networks.critic.kind: expected what the network critic is"),
        (["networks.denoiser.rule=momentum"], "networks.denoiser.rule: expected one of adamw, average, follow, frozen"),
        (["networks.denoiser.rule=frozen"], "denoiser.run: expected the run that the frozen network is of"),
        (["networks.denoiser.rule=frozen", "networks.denoiser.run=a"], "expected one that learns, since Denoising"),
        (["networks.a.kind=mlp", "networks.a.rule=follow"], "a.of: expected the network that is followed, got none"),
        (["networks.a.kind=mlp", "networks.a.rule=follow", "networks.a.of=b"], "a.of: expected one of denoiser, got 'b'"),
        (["networks.a.kind=mlp", "networks.a.decay=2"], r"networks.a.decay: expected a decay in \[0, 1\), got 2"),
    ],
)  # fmt: skip
def test_a_rule_without_its_network_and_a_network_without_its_rule(known, changes, message):
    register_objective("players", TwoPlayers)
    with pytest.raises(ValueError, match=line(message)):
        Config.resolve("mixture", changes=changes)


def test_an_objective_that_is_no_denoising_trains_and_draws_no_grid(known, tmp_path):
    @dataclass(frozen=True)
    class Copy(Objective):
        """The network learns to give back the picture that it is shown."""

        def draw(self, engine, data, key, memory):
            n = data["x"].shape[0]
            return data | {"t": engine.integers(key("t"), n, 1, 1), "target": data["x"]}

        def loss_and_gradient(self, engine, networks, batch, key):
            net = networks["denoiser"]
            y, saved = models.forward(engine, net, batch, key.under("denoiser"))
            loss, of_loss = engine.squared_error(y, batch["target"])
            _, g = models.backward(engine, net, engine.squared_error_backward(1 / key.total, of_loss), saved)
            return {"loss": loss}, {"denoiser": g}

    register_objective("copy", Copy)
    changes = ["objective.kind=copy", "networks.denoiser.width=8", "networks.denoiser.groups=4", "train.batch=8",
               "train.steps=4", "train.grid_every=1", "engine=reference", "train.warmup=0"]  # fmt: skip
    config, losses = Config.resolve("digits", changes=changes), []
    state = train(config, tmp_path / "run", progress=False, on_step=lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0]
    assert not (tmp_path / "run" / "samples").exists()
    names = f"data.classes={list('0123456789')}"
    assert load_state(tmp_path / "run")[0] == config.changed([f"train.shards={config.shards}", names])
    with pytest.raises(
        ValueError, match=line("objective.kind: expected denoising, from which samples are drawn, got Copy")
    ):
        trained(config, state)


def test_the_command_line_imports_a_module_of_the_current_folder(tmp_path):
    text = files(read(NAME, documents()[NAME])[0])["own.py"]
    (tmp_path / "own.py").write_text(text)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")

    def refdiff(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "refdiff", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    train = ["train", "--out", "run", "--quiet", "--preset", "mixture", "--set", "data.source=spiral", "--set",
             "networks.denoiser.kind=one-layer", "--set", "train.steps=3", "--engine", "reference"]  # fmt: skip
    assert "'one-layer'" in refdiff(*train).stderr
    assert refdiff(*train, "--import", "own").returncode == 0
    assert "one-layer" in refdiff("info", "run", "--import", "own").stdout
    missing = refdiff(*train, "--import", "own.py", "--force")
    assert "refdiff: error: --import: expected a module" in refdiff(*train, "--import", "onw").stderr
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert "nothing_of_this_name" in refdiff("info", "run", "--import", "broken").stderr
