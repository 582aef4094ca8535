"""A classifier that guides at the command line: what is drawn, and every pair of runs that does not fit, in one line."""

import json

import numpy as np
import pytest
from helpers import fails, line
from PIL import Image
from toy_networks import ToyClassifier

from refdiff import models
from refdiff.cli import main
from refdiff.config import Config, NetworkConfig
from refdiff.data import DataConfig, Dataset, load
from refdiff.objectives import Classification, ScheduleConfig
from refdiff.sampling import SampleConfig
from refdiff.training import State, load_state, save_state, train, trained

DIGITS = DataConfig(classes=tuple("0123456789"))
TINY = ["networks.denoiser.width=8", "networks.denoiser.groups=4", "schedule.T=30", "schedule.options={beta_end=0.5}",
        "sample.steps=3"]  # fmt: skip
SCHEDULE = ScheduleConfig(T=30, options={"beta_end": 0.5})


def saved(folder, config):
    """A run with weights of which none is zero."""
    state, rng = State.first(config), np.random.default_rng(0)
    for name, tree in state.trees["ema"].items():
        state.trees["ema"][name] = models.tree_map(lambda a: a + 0.3 * rng.standard_normal(a.shape).astype("f"), tree)
    folder.mkdir(parents=True)
    save_state(folder / "checkpoint.safetensors", config, state)
    return folder


def of_classifier(data=DIGITS, schedule=SCHEDULE, noised=True, **model):
    networks = {"classifier": NetworkConfig(ToyClassifier(**{"classes": 10, **model}))}
    objective, settings = Classification(noised=noised), SampleConfig(steps=3)
    return Config(data=data, networks=networks, schedule=schedule, objective=objective, sample=settings)


def of_denoiser(*changes, data=DIGITS):
    config = Config.resolve("digits", changes=[*TINY, *changes])
    return config.from_dict({**config.to_dict(), "data": {"source": "digits", "classes": list(data.classes)}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    saved(folder / "plain", of_denoiser())
    saved(folder / "classes", of_denoiser("networks.denoiser.classes=10"))
    saved(folder / "classifier", of_classifier())
    return folder


def drawn(run, out, *options):
    assert main(["sample", str(run), "--quiet", "--out", str(out), *map(str, options)]) == 0
    return np.load(out)["x"]


def test_an_unconditional_model_draws_a_row_a_class_of_its_classifier_or_the_label(runs, tmp_path):
    guide = "--classifier", runs / "classifier", "--classifier-scale", "5"
    rows = drawn(runs / "plain", tmp_path / "rows.npz", *guide)
    assert len(rows) == 80
    sevens = drawn(runs / "plain", tmp_path / "sevens.npz", *guide, "--label", "7", "--n", "80")
    np.testing.assert_allclose(sevens[56:64], rows[56:64], atol=1e-4)
    assert min(np.abs(sevens[i] - rows[i]).max() for i in (*range(56), *range(64, 80))) > 1e-5
    none = drawn(runs / "plain", tmp_path / "none.npz", "--n", "80")
    zero = drawn(runs / "plain", tmp_path / "zero.npz", *guide[:3], 0, "--label", "7", "--n", "80")
    np.testing.assert_array_equal(zero, none)
    assert np.abs(sevens - none).max() > 1e-3
    grid = tmp_path / "grid.png"
    way = tmp_path / "way.png"
    assert main(["sample", str(runs / "plain"), "--quiet", "--n", "30", "--out", str(grid), "--trajectory", str(way),
                 *map(str, guide)]) == 0  # fmt: skip
    with Image.open(grid) as image:
        assert image.height > 2 * image.width


def test_a_model_with_classes_is_told_the_label_too(runs, tmp_path):
    guide = "--classifier", runs / "classifier", "--classifier-scale", "5"
    both = drawn(runs / "classes", tmp_path / "a.npz", *guide, "--guidance", "3", "--label", "4", "--n", "6")
    one = drawn(runs / "classes", tmp_path / "b.npz", "--guidance", "3", "--label", "4", "--n", "6")
    other = drawn(runs / "classes", tmp_path / "c.npz", *guide, "--label", "4", "--n", "6")
    assert np.abs(both - one).max() > 1e-4
    assert np.abs(both - other).max() > 1e-4
    model = trained(*load_state(runs / "classes"), load_state(runs / "classifier"))
    assert model.classifier.config == ToyClassifier(classes=10)
    assert model.classes == 10


def test_the_interval_and_the_rescaling_are_those_of_the_settings(runs, tmp_path):
    base = "--guidance", "4", "--label", "4", "--n", "6"
    run, options = runs / "classes", ("--guidance-interval", "5", "25", "--guidance-rescale", "0.7")
    one = drawn(run, tmp_path / "a.npz", *base, *options)
    keys = "--set", "sample.guidance_interval=[5,25]", "--set", "sample.guidance_rescale=0.7"
    np.testing.assert_array_equal(one, drawn(run, tmp_path / "b.npz", *base, *keys))
    for left in (options[:3], options[3:]):
        assert np.abs(one - drawn(run, tmp_path / "c.npz", *base, *left, "--force")).max() > 1e-3


def test_eval_measures_the_guided_samples(runs, capsys):
    found = []
    for scale in ("0", "40"):
        assert main(["eval", str(runs / "plain"), "--n", "30", "--quiet", "--json", "--classifier",
                     str(runs / "classifier"), "--classifier-scale", scale]) == 0  # fmt: skip
        found.append(json.loads(capsys.readouterr().out)["frechet_samples"])
    assert found[0] != found[1]
    for guidance in ("1", "3"):
        assert main(["eval", str(runs / "classes"), "--n", "30", "--quiet", "--json", "--guidance", guidance]) == 0
        found.append(json.loads(capsys.readouterr().out)["frechet_samples"])
    assert found[2] != found[3]


def test_options_that_do_not_belong_together_are_refused(runs, tmp_path, capsys):
    plain, classes, guide, out = runs / "plain", runs / "classes", runs / "classifier", tmp_path / "x.npz"
    guided = "--classifier", guide, "--classifier-scale", 2
    for arguments, message in (
        (
            [plain, "--classifier-scale", 2],
            "--classifier-scale: expected with --classifier, got it alone; add --classifier",
        ),
        (
            [plain, "--set", "sample.classifier_scale=2"],
            "sample.classifier_scale: expected 0 without a classifier, got 2",
        ),
        ([plain, "--classifier", guide], "--classifier: expected with --classifier-scale, got it alone; add"),
        ([plain, *guided, "--guidance", 3], "--guidance: expected a model with classes, got one without; leave it out"),
        ([plain, "--guidance-interval", 1, 5], "--guidance-interval: expected a model with classes, got one without"),
        ([plain, "--guidance-rescale", 0.5], "--guidance-rescale: expected a model with classes, got one without"),
        ([classes, "--guidance-interval", 5, 1], "sample.guidance_interval: expected a first and a last t, from 1 on"),
        ([classes, "--guidance-interval", 0, 5], "sample.guidance_interval: expected a first and a last t, from 1 on"),
        (
            [classes, "--guidance-interval", 5, 31],
            "sample.guidance_interval: expected steps from 1 to schedule.T = 30, got",
        ),
        ([classes, "--guidance-rescale", 1.5], "sample.guidance_rescale: expected a number from 0 to 1, got 1.5"),
        ([plain, *guided, "--label", 10], "--label: expected a class from 0 to 9, got 10"),
        ([plain, *guided[:3], "nan"], "sample.classifier_scale: expected a finite number, got nan"),
        (
            [plain, "--classifier", tmp_path / "no", "--classifier-scale", 2],
            f"--classifier: expected a checkpoint file, got '{tmp_path / 'no'}'",
        ),
        (
            [guide],
            "objective.kind: expected denoising, from which samples are drawn, got Classification; sample from a",
        ),
    ):
        assert message in fails(capsys, "sample", *arguments, "--out", out, "--quiet")
    assert not out.exists()


SHAPE = "expected one of samples of (8, 8, 1), the model's shape"
OTHERS = {
    "of a denoiser": (of_denoiser, "expected a run that trains a network 'classifier', got one that trains denoiser"),
    "of clean images": (lambda: of_classifier(noised=False), "expected a classifier of images in noise, got one of clean"),
    "of fewer classes": (
        lambda: of_classifier(DataConfig(), classes=5), "expected one of 10 classes, the model's, got 5"
    ),
    "in another order": (
        lambda: of_classifier(DataConfig(classes=tuple("0132456789"))),
        "expected classes in the model's order, '2' as number 2, got '3'",
    ),
    "of other names": (
        lambda: of_classifier(DataConfig(classes=tuple("abcdefghij"))),
        "expected classes that are the model's, '0' as number 0, got 'a'",
    ),
    "of another size": (lambda: of_classifier(size=16), f"{SHAPE}, got (16, 16, 1)"),
    "of colours": (lambda: of_classifier(channels=3), f"{SHAPE}, got (8, 8, 3)"),
    "of another T": (
        lambda: of_classifier(schedule=ScheduleConfig(T=40, options={"beta_end": 0.5})),
        "expected one trained with schedule.T = 30, the model's, got 40",
    ),
    "of another schedule": (
        lambda: of_classifier(schedule=ScheduleConfig("cosine", 30)),
        "expected one trained with the schedule linear {'beta_end': 0.5}, the model's, got cosine",
    ),
    "of other options": (
        lambda: of_classifier(schedule=ScheduleConfig(T=30, options={"beta_end": 0.4})),
        "expected one trained with the schedule linear {'beta_end': 0.5}, the model's, got linear {'beta_end': 0.4}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("denoiser", ["plain", "classes"])
def test_a_classifier_of_something_else_is_refused_by_what_differs(runs, tmp_path, capsys, name, denoiser):
    make, message = OTHERS[name]
    other = saved(tmp_path / "other", make())
    guide = "--classifier", other, "--classifier-scale", 2, "--quiet"
    assert f"--classifier: {message}" in fails(capsys, "sample", runs / denoiser, *guide, "--out", tmp_path / "x.npz")
    assert f"--classifier: {message}" in fails(capsys, "eval", runs / denoiser, *guide)
    with pytest.raises(ValueError, match=r"\Aclassifier: [^\n]*\Z"):
        trained(*load_state(runs / denoiser), load_state(other))


def test_names_are_compared_where_both_runs_know_them_and_equal_schedules_may_be_written_in_two_ways(runs, tmp_path):
    unnamed = saved(tmp_path / "unnamed", of_classifier(DataConfig()))
    longhand = saved(
        tmp_path / "longhand",
        of_classifier(schedule=ScheduleConfig(T=30, options={"beta_start": 1e-4, "beta_end": 0.5})),
    )
    for other in (unnamed, longhand):
        assert trained(*load_state(runs / "plain"), load_state(other)).classes == 10


# ---- the names of the classes


def test_a_run_keeps_the_names_of_its_classes_and_goes_on_with_them(tmp_path):
    changes = [*TINY, "train.batch=4", "train.steps=2", "train.warmup=1", "train.grid_every=0"]
    config = Config.resolve("digits", changes=changes)
    train(config, tmp_path / "run", progress=False)
    assert load_state(tmp_path / "run")[0].data.classes == tuple("0123456789")
    longer = config.changed(["train.steps=3", "train.decay=constant"])
    train(longer, tmp_path / "long", progress=False)
    assert train(longer.changed(["train.steps=4"]), tmp_path / "long", resume=True, progress=False).step == 4
    state = load_state(tmp_path / "long")[1]
    save_state(tmp_path / "long" / "checkpoint.safetensors", longer, state)  # as before names were kept
    assert load_state(tmp_path / "long")[0].data.classes == ()
    assert train(longer.changed(["train.steps=5"]), tmp_path / "long", resume=True, progress=False).step == 5
    with pytest.raises(
        ValueError, match=line("data.classes: expected 0, 1, .* as digits calls its classes, got cat, dog;")
    ):
        train(config.changed(["data.classes=['cat', 'dog']"]), progress=False)


def test_no_run_is_trained_with_a_classifier_that_would_guide_its_pictures(tmp_path):
    with pytest.raises(ValueError, match=line("sample.classifier_scale: expected 0 in training, .* got 2; leave it")):
        train(Config.resolve("digits", changes=[*TINY, "sample.classifier_scale=2"]), tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()


def test_folders_of_classes_and_the_digits_know_their_names(tmp_path):
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((4, 4), 9 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load(tmp_path)
    assert data.names == ("cat", "dog")
    assert data.labels[:2].tolist() == [0, 0]
    assert DataConfig().named(data).classes == ("cat", "dog")
    assert load("digits").names == tuple("0123456789")
    assert load("mixture").names == ()


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "b")])
def test_names_that_are_no_names_of_the_classes_are_refused(names):
    x, labels = np.zeros((4, 2), "f"), np.array([0, 1, 0, 1])
    assert Dataset("d", x, labels, x[:0], labels[:0], names=("a", "b", "c")).names == ("a", "b", "c")
    with pytest.raises(ValueError, match="names: expected 2 or more, each once, got"):
        Dataset("d", x, labels, x[:0], labels[:0], names=names)
    with pytest.raises(ValueError, match="names: expected none without labels, got"):
        Dataset("d", x, None, x[:0], None, names=names)


def test_samples_that_strong_guidance_makes_infinite_say_what_to_lower(runs, tmp_path, capsys):
    guided = "--classifier", runs / "classifier", "--classifier-scale", "1e38", "--set", "sample.method=ancestral"
    said = fails(capsys, "sample", runs / "plain", *guided, "--out", tmp_path / "x.npz", "--quiet")
    assert said.endswith("that are not; lower sample.classifier_scale")


def test_a_judge_neither_guides_nor_knows_other_classes(runs, tmp_path, capsys):
    guide = runs / "classifier"
    guided = "--quiet", "--n", 30, "--classifier", guide, "--classifier-scale", 2
    for judge in (guide, guide / "checkpoint.safetensors"):
        told = fails(capsys, "eval", runs / "plain", *guided, "--judge", judge)
        assert f"--judge: expected a classifier that does not guide, got that of --classifier, {judge}; train" in told
    other = saved(tmp_path / "other", of_classifier(DataConfig(classes=tuple("0132456789"))))
    told = fails(capsys, "eval", runs / "classes", "--quiet", "--judge", other)
    assert "--judge: expected classes in the model's order, '2' as number 2, got '3'" in told
    told = fails(capsys, "eval", runs / "classes", "--quiet", "--judge", tmp_path / "no")
    assert "--judge: expected a checkpoint file, got" in told


def test_eval_of_a_classifier_takes_an_engine_and_no_key_of_samples(runs, capsys):
    run = runs / "classifier"
    assert "--set: expected a run that samples are drawn of" in fails(capsys, "eval", run, "--set=sample.steps=2")
    assert "dtype: expected float32 with engine cpu" in fails(
        capsys, "eval", run, "--engine", "cpu", "--dtype", "bfloat16"
    )
