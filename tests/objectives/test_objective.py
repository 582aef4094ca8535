"""What every objective is, and how one's own is made known."""

from dataclasses import dataclass

import pytest

from refdiff import objectives
from refdiff.objectives import OBJECTIVES, Denoising, Objective, objective_name, register_objective
from refdiff.random import Key


@dataclass(frozen=True)
class Nothing(Objective):
    pass


@dataclass
class Thawed:
    pass


@dataclass(frozen=True)
class NoObjective:
    pass


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(objectives.objective, "OBJECTIVES", dict(OBJECTIVES))
    return objectives.objective.OBJECTIVES


def test_what_an_objective_does_unless_it_says_otherwise():
    objective, batch, key = Nothing(), {"x": object()}, Key(0)
    assert objective.trains == ("denoiser",)
    assert objective.draw(None, batch, key, {}) is batch
    assert objective.gather(None, {}, batch, key) is None
    assert objective.remember() == {}
    memory = {"a": 1}
    assert objective.update(memory, {}) is memory
    assert objective.turns(3) == (objective,)
    with pytest.raises(NotImplementedError):
        objective.loss_and_gradient(None, {}, batch, key)


def test_an_objective_of_ones_own_is_known_by_its_name(registry):
    register_objective("nothing", Nothing)
    register_objective("nothing", Nothing)  # once more is no harm
    assert registry["nothing"] is Nothing
    assert registry["denoising"] is Denoising
    assert objective_name(Nothing()) == "Nothing"


@pytest.mark.parametrize("cls", [Thawed, NoObjective, type("Plain", (), {}), Nothing(), None])
def test_what_is_no_objective_is_refused(registry, cls):
    with pytest.raises(ValueError, match="cls: expected a frozen dataclass derived from Objective for 'mine', got "):
        register_objective("mine", cls)
    assert "mine" not in registry


def test_a_name_belongs_to_one_objective(registry):
    with pytest.raises(
        ValueError, match="name: expected one that no other objective has, got 'denoising', which is Denoising"
    ):
        register_objective("denoising", Nothing)
    assert registry["denoising"] is Denoising
