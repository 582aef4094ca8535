"""The bound of a network that learned its variance: its own reverse steps, beside the same network's with fixed ones."""

import json

import numpy as np
import pytest

from refdiff import models
from refdiff.cli import main
from refdiff.config import Config
from refdiff.data import load
from refdiff.evaluation import estimate_bound, nll
from refdiff.models import Network
from refdiff.process import (
    fixed_large_log_variance,
    fixed_reverse,
    learned_reverse,
    posterior_log_variance,
    predictor,
    step_log_variance,
)
from refdiff.sampling import Trained, denoiser, network_function
from refdiff.training import State, trained, trainer

SMALL = ["model.width=8", "model.groups=4", "schedule.T=10", "schedule.options={beta_end=0.5}", "sample.steps=4"]
X = load("digits").held_out[:20]


def made(*changes, v=None):
    """Weights that say something; v: what the network says of every variance."""
    changes = [*SMALL, "objective.variance=learned", *changes, "engine=reference"]
    config, rng = Config.resolve("digits", changes=changes), np.random.default_rng(0)
    p = models.tree_map(lambda spec: 0.2 * rng.standard_normal(spec.shape).astype("f"), models.layout(config.model))
    if v is not None:
        p["conv_out"]["weight"][..., 1], p["conv_out"]["bias"][1] = 0, v
    return Trained({"denoiser": Network(config.model, p)}, config.objective, config.sample, "reference")


@pytest.mark.parametrize("threshold", ["static", "none"])
def test_it_is_the_bound_of_the_learned_reverse_step_and_beside_it_of_both_fixed_ones(threshold):
    trained = made(f"sample.threshold={threshold}")
    found = nll(trained, X, seed=3, per_step=6, progress=False)
    assert (found["variance"], found["bins"]) == ("learned", 17)
    schedule, clip = trained.objective.schedule.build(), (-1, 1) if threshold == "static" else None
    network = denoiser(network_function("reference", trained.networks["denoiser"]), {}, True)

    def model(x_t, t):
        return tuple(a.astype(np.float64) for a in network(x_t.astype(np.float32), t))

    predict = predictor(schedule, model, "eps", clip)
    for name, reverse in {
        "": learned_reverse(schedule, model, "eps", clip),
        "_posterior": fixed_reverse(schedule, predict, posterior_log_variance),
        "_beta": fixed_reverse(schedule, predict, fixed_large_log_variance),
    }.items():
        expected = estimate_bound(schedule, reverse, X, 3, 6, 17)
        assert found[f"bits_per_dim{name}"] == expected["bits_per_dim"]
        assert found[f"bits_per_dim{name}_error"] == expected["bits_per_dim_error"]
        if not name:
            assert {key: found[key] for key in expected} == expected
    assert len({found[f"bits_per_dim{name}"] for name in ("", "_posterior", "_beta")}) == 3


def test_at_the_ends_of_v_it_is_that_of_the_fixed_variances():
    for v, name, first in ((-1, "posterior", "refdiff"), (1, "beta", "refdiff")):
        found = nll(made(v=v), X, per_step=6, progress=False, first_variance=first)
        assert found["bits_per_dim"] == pytest.approx(found[f"bits_per_dim_{name}"], rel=1e-12)
        assert found["terms"] == pytest.approx(
            nll(made(v=v), X, per_step=6, variance=name, progress=False, first_variance=first)["terms"], rel=1e-12
        )


def test_the_convention_of_the_first_variance_is_that_of_beta_alone():
    one, other = (nll(made(), X, per_step=6, progress=False, first_variance=f) for f in ("guided-diffusion", "refdiff"))
    assert one["terms"] == other["terms"]
    assert one["bits_per_dim_posterior"] == other["bits_per_dim_posterior"]
    assert one["bits_per_dim_beta"] != other["bits_per_dim_beta"]
    schedule = made().objective.schedule.build()
    assert fixed_large_log_variance(schedule, 1) != step_log_variance(schedule, 1)


def test_of_a_network_with_v_a_fixed_variance_may_be_asked_for():
    found = nll(made(), X, per_step=6, progress=False)
    for name in ("posterior", "beta"):
        fixed = nll(made(f"sample.variance={name}"), X, per_step=6, progress=False)
        assert fixed["variance"] == name
        assert fixed["bits_per_dim"] == found[f"bits_per_dim_{name}"]
        assert not any(key.startswith("bits_per_dim_") and not key.endswith("error") for key in fixed)


def test_a_network_that_learned_no_variance_has_none():
    config = Config.resolve("digits", changes=SMALL)
    plain = Trained({"denoiser": Network(config.model, {})}, config.objective, config.sample, "reference")
    with pytest.raises(
        ValueError, match=r"^variance: expected posterior or beta, since this network learns no variance"
    ):
        nll(plain, X, variance="learned", progress=False)


def test_eval_prints_all_three(tmp_path, capsys):
    out = str(tmp_path / "run")
    options = [
        f"--set={c}" for c in (*SMALL, "objective.variance=learned", "train.steps=3", "train.batch=4", "engine=cpu")
    ]
    assert main(["train", "--out", out, "--quiet", *options]) == 0
    capsys.readouterr()
    assert main(["eval", out, "--n", "4", "--quiet", "--nll", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["variance"] == "learned"
    assert len(found["terms"]) == 11
    assert main(["eval", out, "--n", "4", "--quiet", "--nll", "--bins", "density"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"bits_per_dim", "bits_per_dim_posterior", "bits_per_dim_beta", "bits_per_dim_beta_error"} <= set(lines)
    assert float(lines["reconstruction"]) != pytest.approx(found["reconstruction"], rel=0.01)


@pytest.mark.slow
def test_the_hybrid_loss_makes_the_learned_variance_better_than_both_fixed_ones():
    # A hundred steps, in which the network also learns its prediction: with a worse one v* lies beyond beta.
    changes = ["train.batch=32", "train.warmup=1", "train.learning_rate=0.005", "train.ema_decay=0", "engine=cpu"]
    noise = ["schedule.T=20", "schedule.options={beta_start=0.005, beta_end=0.5}", "train.steps=100"]
    config = Config.resolve("digits", changes=[*SMALL, "objective.variance=learned", *noise, *changes])
    data, rng, running = load("digits"), np.random.default_rng(0), trainer(config, State.first(config))
    for _ in range(100):
        running.step({"x": data.x[rng.integers(0, len(data.x), 32)]})
    found = nll(trained(config, running.state()), data.held_out, per_step=30, progress=False)
    fixed = min(found["bits_per_dim_posterior"], found["bits_per_dim_beta"])
    assert found["bits_per_dim"] < fixed - 3 * found["bits_per_dim_error"]
    assert found["bits_per_dim"] < 3.6
