"""The bound given conditions: every image drawn for a step takes its own along, and none takes another's."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import networks
import numpy as np
import pytest
from helpers import line

from refdiff.cli import main
from refdiff.config import Config
from refdiff.data import load
from refdiff.evaluation import nll
from refdiff.models import KINDS, Input, Network, linear_layout, register
from refdiff.objectives import Denoising, ScheduleConfig
from refdiff.process import convert
from refdiff.sampling import SampleConfig, Trained
from refdiff.training import State, save_state

SCHEDULE = ScheduleConfig("cosine", 20)
X = np.random.default_rng(0).standard_normal((40, 2))


@dataclass(frozen=True)
class Knowing:
    """Says that x_0 is what it is told: `context` itself, or that of X which has this label."""

    reads: str
    classes: int = len(X)
    null_label: bool = False


def forward(engine, net, inputs, key=None):
    told = inputs["context"] if net.config.reads == "context" else X[inputs["label"]]
    x, t = inputs["x"].astype(np.float64), inputs["t"]
    return convert(SCHEDULE.build(), x, t, np.asarray(told, np.float64), "x0", "x0"), {}


def inputs(config):
    told = {"context": Input((2,))} if config.reads == "context" else {"label": Input((), "int")}
    return {"x": Input((2,)), "t": Input((), "int"), **told}


@pytest.fixture(autouse=True)
def knowing_is_known():
    layout = {"w": linear_layout(1, 1)}
    register(
        "knowing", Knowing, SimpleNamespace(inputs=inputs, layout=lambda c: layout, forward=forward, backward=forward)
    )
    yield
    del KINDS["knowing"]


def knowing(reads):
    objective = Denoising(schedule=SCHEDULE, prediction="x0", bins=0)
    return Trained({"denoiser": Network(Knowing(reads), {})}, objective, SampleConfig(threshold="none"), "reference")


def bound(model, x=X, **given):
    return nll(model, x, per_step=6, progress=False, **given)


@pytest.mark.parametrize("reads", ["context", "label"])
@pytest.mark.parametrize("steps", [None, 5])
def test_a_network_that_is_told_x_0_leaves_no_term_between_the_first_and_the_last(reads, steps):
    """KL = 0 where x0_hat = x_0 and the variance is the posterior's, whatever image was drawn for the step; with the
    conditions in another order it is not."""
    own = {"context": X.astype(np.float32)} if reads == "context" else {"label": np.arange(len(X))}
    found = bound(knowing(reads), conditions=own, steps=steps, batch=7)
    assert max(np.abs(found["terms"][1:-1])) < 1e-12
    assert found["given"] == reads
    other = bound(knowing(reads), conditions={name: np.roll(a, 1, axis=0) for name, a in own.items()}, steps=steps)
    assert other["denoising"] > 1
    assert other["prior"] == found["prior"]


def test_one_condition_for_all_is_that_of_each():
    one, each = (bound(knowing("label"), conditions={"label": label}) for label in (3, np.full(len(X), 3)))
    assert one == each


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (None, ["label: expected this condition, which the network takes, got none"]),
        ({}, ["label: expected this condition"]),
        ({"label": np.arange(3)}, [r"label: expected shape \(\), or \(40, ...\) with one for each sample, got \(3,\)"]),
        ({"label": np.arange(40) + 1}, ["label: expected integers from 0 to 39, got 1 to 40"]),
        ({"label": 1, "text": 2}, ["text: expected no such condition"]),
    ],
)
def test_conditions_that_do_not_fit_are_refused_before_anything_is_computed(conditions, words):
    with pytest.raises(ValueError, match=line(*words)):
        bound(knowing("label"), conditions=conditions)


# Of the digits


def config(*changes):
    tiny = ["networks.denoiser.width=8", "networks.denoiser.groups=4", "networks.denoiser.classes=10", "sample.steps=3",
            "engine=reference", "schedule.T=12", "schedule.options={beta_end=0.5}"]  # fmt: skip
    return Config.resolve("digits", changes=[*tiny, *changes])


def state(config):
    """Weights that are not the first ones, whose last layer is zero and reads nothing."""
    state, rng = State.first(config), np.random.default_rng(0)
    for name, tree in state.trees["ema"].items():
        from refdiff.models import tree_map

        state.trees["ema"][name] = tree_map(lambda a: a + 0.2 * rng.standard_normal(a.shape).astype("f"), tree)
    return state


def test_without_conditions_a_model_with_classes_is_measured_under_the_label_for_none():
    made = config()
    model = networks.trained(made, state(made).trees["ema"]["denoiser"])
    x, labels = load("digits").held_out[:10], load("digits").held_out_labels[:10]
    none, null, own = (bound(model, x, conditions=c) for c in (None, {"label": 10}, {"label": labels}))
    assert "given" not in none
    assert none["terms"] == null["terms"]
    assert abs(own["bits_per_dim"] - none["bits_per_dim"]) > 1e-6


def test_the_small_image_is_made_of_x_unless_it_is_given():
    made = config("networks.denoiser.low_res=4", "networks.denoiser.attention=[4]")
    model = networks.trained(made, state(made).trees["ema"]["denoiser"])
    x = load("digits").held_out[:6]
    means = x.reshape(6, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    made_of_x, given, other = (bound(model, x, conditions=c) for c in ({}, {"low_res": means}, {"low_res": -means}))
    assert made_of_x["given"] == given["given"] == "low_res"
    assert made_of_x["terms"] == pytest.approx(given["terms"], rel=1e-5)
    assert abs(made_of_x["bits_per_dim"] - other["bits_per_dim"]) > 1e-6


@pytest.mark.parametrize("null_label", ["true", "false"])
def test_eval_measures_given_the_labels_that_the_data_have(tmp_path, capsys, null_label):
    digits, made = load("digits"), config(f"networks.denoiser.null_label={null_label}")
    save_state(tmp_path / "checkpoint.safetensors", made, state(made))
    few = {"x": digits.x[:20], "labels": digits.labels[:20], "held_out": digits.held_out[:8]}
    np.savez(tmp_path / "few.npz", **few, held_out_labels=digits.held_out_labels[:8])
    options = ["--n", "10", "--nll", "--nll-steps", "4", "--json", "--quiet", "--data", str(tmp_path / "few.npz")]
    assert main(["eval", str(tmp_path), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    model = networks.trained(made, state(made).trees["ema"]["denoiser"])
    labels = {"label": digits.held_out_labels[:8]}
    expected = nll(model, digits.held_out[:8], steps=4, conditions=labels, progress=False)
    assert found["given"] == "label"
    assert math.isclose(found["bits_per_dim"], expected["bits_per_dim"], rel_tol=1e-6)
