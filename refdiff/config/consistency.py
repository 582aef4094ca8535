"""What the networks and the objective of a configuration must be to each other, checked when it is made."""

from __future__ import annotations

from typing import Any

from ..errors import one_of, setting
from ..models import ClassifierConfig, flatten, inputs, layout
from ..objectives import Classification, Denoising, Objective, objective_name
from .networks import NetworkConfig
from .rules import RULES, learns

__all__ = ["check_classification_networks", "check_denoising_networks", "check_networks"]

Networks = dict[str, NetworkConfig]


def check_networks(networks: Networks, objective: Objective) -> None:
    """ValueError for a name or a rule that cannot be, and for networks that are trained or followed and are not there."""
    for name, network in networks.items():
        if not name or any(sign in name for sign in "/. "):  # it is part of the names of arrays, streams and keys
            raise ValueError(f"networks: expected names without '/', '.' and spaces, got {name!r}; choose another")
        one_of(f"networks.{name}.rule", network.rule.rule, RULES, "import the module that registers it first")
        if network.rule.rule == "follow":
            _check_followed(name, networks)
    turns = objective.turns(1 << 30)
    if not turns:
        raise ValueError(
            f"{objective_name(objective)}.turns: expected at least one objective a step, got none; give (self,)"
        )
    for turn in turns:
        if len(set(turn.trains)) < len(turn.trains):
            raise ValueError(
                f"objective.trains: expected each network once, got {', '.join(turn.trains)}; name it once"
            )
        for name in turn.trains:
            if name not in networks:
                raise ValueError(
                    f"networks: expected {name!r}, which {objective_name(turn)} trains, got "
                    f"{', '.join(networks) or 'none'}; add a table [networks.{name}]"
                )
            if networks[name].rule.rule in ("frozen", "follow"):
                raise ValueError(
                    f"networks.{name}.rule: expected one that learns, since {objective_name(turn)} trains {name}, "
                    f"got {networks[name].rule.rule!r}"
                )


def _check_followed(name: str, networks: Networks) -> None:
    key, of = f"networks.{name}.of", networks[name].rule.of
    one_of(key, of, [other for other in networks if other != name])
    if not learns(rule := networks[of].rule.rule) and rule != "average":
        raise ValueError(f"{key}: expected a network that is trained, got {of}, whose rule is {rule!r}; follow another")
    if _shapes(networks[name].model) != _shapes(networks[of].model):
        raise ValueError(
            f"{key}: expected a network with the parameters of {name}, got {of}, which has others; give both the same keys"
        )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(parameter.shape) for path, parameter in flatten(layout(model)).items()}


def check_denoising_networks(networks: Networks, objective: Denoising) -> None:
    """ValueError unless the denoiser and its encoders are there, are what is trained, and read what is said of them."""
    if "denoiser" not in networks:
        raise ValueError(
            f"networks: expected 'denoiser', from which samples are drawn, got {', '.join(networks)}; add a table "
            "[networks.denoiser]"
        )
    reads, made = inputs(networks["denoiser"].model), dict(objective.encoders)
    if isinstance(networks["denoiser"].model, ClassifierConfig):
        raise ValueError(
            "networks.denoiser.kind: expected a network that says an array of the shape of x, got 'classifier', which says "
            f"logits; take unet, or {setting('objective.kind', 'classification')} and networks.classifier"
        )
    for condition, name in objective.encoders:
        if name not in networks:
            raise ValueError(
                f"objective.encoders: expected networks among {', '.join(networks)}, got {name!r}; add a table "
                f"[networks.{name}]"
            )
        if condition not in reads:
            raise ValueError(
                f"objective.encoders: expected conditions that the denoiser reads ({', '.join(reads)}), got {condition!r}; "
                "leave it out, or choose a denoiser that reads it"
            )
    trained = ["denoiser", *made.values()]
    if type(objective).loss_and_gradient is Denoising.loss_and_gradient and set(objective.trains) != set(trained):
        raise ValueError(
            f"objective.trains: expected the denoiser and its encoders, {', '.join(trained)}, got "
            f"{', '.join(objective.trains) or 'none'}; name these"
        )
    for name in trained:
        if type(objective).loss_and_gradient is Denoising.loss_and_gradient and not learns(networks[name].rule.rule):
            raise ValueError(
                f"networks.{name}.rule: expected one that moves by a gradient, which denoising gives, got "
                f"{networks[name].rule.rule!r}; take adamw"
            )
    told = {entry for network in networks.values() for entry in inputs(network.model)} - {"x", "t", *made}
    for entry, _, _ in objective.null:
        if entry not in told:
            raise ValueError(
                f"objective.null: expected conditions that the networks read ({', '.join(sorted(told)) or 'none'}), got "
                f"{entry!r}; leave it out"
            )


def check_classification_networks(networks: Networks, objective: Classification) -> None:
    """ValueError unless the classifier is what is trained, has classes to tell apart, and is not told the label."""
    if type(objective).loss_and_gradient is not Classification.loss_and_gradient:
        return
    if tuple(objective.trains) != ("classifier",):
        raise ValueError(
            f"objective.trains: expected the classifier alone, got {', '.join(objective.trains) or 'none'}; leave it out"
        )
    network = networks["classifier"]
    classes, reads = getattr(network.model, "classes", 0), inputs(network.model)
    if classes < 2 or "label" in reads:
        raise ValueError(
            "networks.classifier.kind: expected a network that tells two classes or more apart and is not told the label, "
            f"got {type(network.model).__name__}, which has {classes} and reads {', '.join(reads)}; take classifier"
        )
    if not learns(rule := network.rule.rule):
        raise ValueError(
            f"networks.classifier.rule: expected one that moves by a gradient, which classification gives, got {rule!r}; "
            "take adamw"
        )
