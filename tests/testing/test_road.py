"""The worked example from the VAE's bound to L_simple: its equalities and inequalities hold in the numbers."""

from itertools import pairwise

import numpy as np
import pytest

from refdiff.testing import road_example as example
from refdiff.testing.claims.misprints import MISPRINTS
from refdiff.testing.road import road

LINES = [line for _, lines in road() for line in lines]
BY_NAME = {line.name: line for line in LINES}
EXACT = 1e-11  # what two rules of quadrature leave


def test_each_line_has_the_number_of_the_line_before_or_is_below_it():
    assert [line.relation for line in LINES] == ["", "=", "<=", "=", "", "=", "<=", *["="] * 8, ""]
    for before, line in pairwise(LINES):
        if line.relation == "=":
            assert abs(line.value - before.value) < EXACT, line.name
        elif line.relation == "<=":
            lost = line.parts["the divergence lost"]
            assert lost > 0.1
            assert abs(line.value + lost - before.value) < EXACT, line.name


def test_the_parts_make_up_the_line():
    of = BY_NAME["reconstruction and divergence"]
    assert of.parts["reconstruction"] - of.parts["divergence from the prior"] == pytest.approx(of.value, abs=EXACT)
    for name in (
        "consistency",
        "denoising",
        "divergences",
        "errors of the mean",
        "errors of x_0",
        "errors of the noise",
    ):
        line = BY_NAME[name]
        parts = list(line.parts.values())[:4]
        assert len(parts) == example.SCHEDULE.T + 1
        assert -sum(parts) == pytest.approx(line.value, abs=EXACT), name
    weighted = BY_NAME["weighted errors and a constant"]
    errors = BY_NAME["L_simple"].parts
    for t in (1, 2, 3):
        each = weighted.parts[f"w_{t}"] * errors[f"E|eps - eps_hat|^2 at t = {t}"]
        assert each == pytest.approx(weighted.parts[f"w_{t} E|eps - eps_hat|^2"], abs=EXACT)
    assert BY_NAME["L_simple"].value == pytest.approx(np.mean(list(errors.values())), abs=EXACT)


def test_denoising_terms_and_divergences_agree_one_by_one_and_consistency_terms_do_not():
    consistency, *others = (
        np.array(list(BY_NAME[name].parts.values())[:4])
        for name in (
            "consistency",
            "denoising",
            "divergences",
            "errors of the mean",
            "errors of x_0",
            "errors of the noise",
        )
    )
    for other in others:
        assert np.abs(other - others[0]).max() < EXACT
    assert consistency[0] == pytest.approx(others[0][0], abs=EXACT)
    assert np.abs(consistency - others[0])[1:].min() > 0.008


def test_the_numbers():
    """That the page states: a change of the example, or of a function that it calls, changes them."""
    assert BY_NAME["evidence"].value == pytest.approx(
        -1.2737266346, abs=1e-10
    )  # of three decoders, the last of that name
    assert BY_NAME["the bound"].value == pytest.approx(-1.3616030529, abs=1e-10)
    assert BY_NAME["the joint ratio"].value == pytest.approx(-1.4315932709, abs=1e-10)
    assert BY_NAME["L_simple"].value == pytest.approx(0.3317619322, abs=1e-10)


def test_the_errata_state_what_the_misprint_costs_here():
    off = BY_NAME["consistency"].parts["by how much that is off"]
    assert any(f"comes out {off:.2f} nats too low" in misprint.why for misprint in MISPRINTS)
