"""Networks and an objective that do not fit each other are named when the configuration is made."""

import pytest

from refdiff.config import Config
from refdiff.objectives import Denoising

TEXT = ("networks.text.kind=mlp",)
BOOK = ("networks.book.kind=mlp",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("networks.a/b.kind=mlp",), r"^networks: expected names without '/', '.' and spaces, got 'a/b'; choose another$"),
        (("networks..kind=mlp",), r"^networks: expected names without '/', '.' and spaces, got ''; choose another$"),
        (
            ('objective.trains=["denoiser", "denoiser"]',),
            r"^objective.trains: expected each network once, got denoiser, denoiser; name it once$",
        ),
        (("objective.trains=[]",), r"^objective.trains: expected the denoiser and its encoders, denoiser, got none; name"),
        (
            (*TEXT, 'objective.trains=["denoiser", "text"]'),
            r"^objective.trains: expected the denoiser and its encoders, denoiser, got denoiser, text; name these$",
        ),
        (
            ('objective.encoders=[["context", "text"]]',),
            r"^objective.encoders: expected networks among denoiser, got 'text'; add a table \[networks.text\]$",
        ),
        (
            (*TEXT, 'objective.encoders=[["context", "text"]]'),
            r"^objective.encoders: expected conditions that the denoiser reads \(x, t\), got 'context'; leave it out",
        ),
        (
            ('objective.null=[["colour", 0, 0.1]]',),
            r"^objective.null: expected conditions that the networks read \(none\), got 'colour'; leave it out$",
        ),
        (
            ("networks.denoiser.classes=10", 'objective.null=[["x", 0, 0.1]]'),
            r"^objective.null: expected conditions that the networks read \(label\), got 'x'; leave it out$",
        ),
        (
            (*TEXT, "networks.text.rule=follow", "networks.text.of=denoiser"),
            r"^networks.text.of: expected a network with the parameters of text, got denoiser, which has others; give",
        ),
        (
            (*TEXT, *BOOK, "networks.text.rule=follow", "networks.text.of=book", "networks.book.rule=frozen",
             "networks.book.run=there"),
            r"^networks.text.of: expected a network that is trained, got book, whose rule is 'frozen'; follow another$",
        ),
        (
            (*TEXT, *BOOK, "networks.text.rule=follow", "networks.text.of=book", "networks.book.rule=follow",
             "networks.book.of=text"),
            r"^networks.text.of: expected a network that is trained, got book, whose rule is 'follow'; follow another$",
        ),
        (
            ("networks.denoiser.rule=signed",),
            r"^networks.denoiser.rule: .* got 'signed'; import the module that registers it first$",
        ),
        (
            ("networks.denoiser.rule=average",),
            r"^networks.denoiser.rule: expected one that moves by a gradient, .* got 'average'",
        ),
        (("objective.kind=fading",), r"^objective.kind: .* got 'fading'; import the module that registers it first$"),
        (("networks.denoiser.kind=own",), r"^networks.denoiser.kind: .* 'own'; import the module that registers it first$"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        Config().changed(changes)


def test_a_list_where_a_name_belongs_is_not_told_to_stand_in_quotes():
    with pytest.raises(ValueError, match=r"^networks.denoiser.rule: expected a str, got \['adamw'\]$"):
        Config.from_dict({"networks": {"denoiser": {"rule": ["adamw"]}}})


def test_a_denoising_needs_a_denoiser():
    table = {"networks": {"critic": {"kind": "mlp"}}, "objective": {"trains": ["critic"]}}
    with pytest.raises(
        ValueError, match=r"^networks: expected 'denoiser', from which samples are drawn, got critic; add"
    ):
        Config.from_dict(table)


def test_a_follower_of_the_same_layout_is_taken():
    config = Config().changed([*TEXT, *BOOK, "networks.text.rule=follow", "networks.text.of=book"])
    assert config.networks["text"].rule.of == "book"
    assert config.objective == Denoising(bins=17)


def test_an_objective_of_another_kind_has_the_presets_denoiser_only_if_it_trains_it_or_is_told_so():
    classifier = [
        "objective.kind=classification",
        "networks.classifier.kind=classifier",
        "networks.classifier.width=32",
    ]
    small = [*classifier, "networks.classifier.groups=8"]
    assert set(Config.resolve("digits", changes=small).networks) == {"classifier"}
    told = Config.resolve("digits", changes=[*small, "networks.denoiser.width=64"])
    assert set(told.networks) == {"classifier", "denoiser"}
    assert set(Config.resolve("digits", changes=["networks.teacher.kind=mlp"]).networks) == {"denoiser", "teacher"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["networks.classifier.kind=unet", "networks.classifier.classes=0"], r"kind: .* UNetConfig, which has 0"),
        (["networks.classifier.kind=unet", "networks.classifier.classes=10"], r"kind: .* 10 and reads x, t, label; take"),
        (["networks.classifier.kind=mlp"], r"kind: expected a network that tells two classes or more .* got MLPConfig"),
        (["networks.classifier.rule=average"], r"rule: expected one that moves by a gradient, .* 'average'; take adamw$"),
    ],
)  # fmt: skip
def test_a_classifier_is_a_network_that_tells_classes_apart_and_learns(changes, message):
    with pytest.raises(ValueError, match=r"^networks.classifier." + message):
        Config.resolve("digits-classifier", changes=changes)


def test_a_classification_trains_the_classifier_alone_and_a_denoiser_is_none():
    with pytest.raises(ValueError, match=r"^objective.trains: expected the classifier alone, got none; leave it out$"):
        Config.resolve("digits-classifier", changes=["objective.trains=[]"])
    with pytest.raises(
        ValueError, match=r"^networks.denoiser.kind: expected a network that says an array .* got 'classif"
    ):
        Config.resolve("digits", changes=["networks.denoiser.kind=classifier"])
