"""Whose classifier may judge a model: what differs is named, and both values."""

import pytest
from helpers import line

from refdiff.config import Config
from refdiff.training import State, trained
from refdiff.training.judge import judge_of

SMALL = ["networks.denoiser.width=8", "engine=reference"]


def run(*changes):
    """The configuration of a run with a network `classifier`, and its first state."""
    own = [f"networks.classifier.{key}" for key in ("kind=unet", "size=8", "channels=1", "width=8", *changes)]
    config = Config.resolve("digits", changes=[*SMALL, *own])
    return config, State.first(config)


def model(classes=10):
    config = Config.resolve("digits", changes=[*SMALL, f"networks.denoiser.classes={classes}"])
    return trained(config, State.first(config))


@pytest.mark.parametrize(
    ("changes", "classes", "words"),
    [
        (["classes=10"], 0, ["judge: expected a model with classes, got one without; leave it out"]),
        (["classes=10", "size=16"], 10, [r"a classifier of samples of shape \(8, 8, 1\), got \(16, 16, 1\)"]),
        (["classes=9"], 10, ["a classifier of as many classes as the model, 10, got 9"]),
        ([], 10, ["a classifier of as many classes as the model, 10, got 0"]),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(changes, classes, words):
    with pytest.raises(ValueError, match=line(*words)):
        judge_of(*run(*changes), model(classes))


def test_a_run_without_a_classifier_judges_nobody():
    config = Config.resolve("digits", changes=SMALL)
    with pytest.raises(
        ValueError, match=line("judge: expected a run with a network `classifier`, got one of denoiser")
    ):
        judge_of(config, State.first(config), model())
