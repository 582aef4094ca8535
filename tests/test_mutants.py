"""The page of mutants: each survivor has a reason of its own, and a reason nobody needs any more is said to be one."""

import json

import mutants
import pytest


def test_a_mutants_function_is_read_off_its_name():
    assert mutants.function_of("refdiff.process.arrays.x_like__mutmut_30") == "refdiff.process.arrays.like"
    assert (
        mutants.function_of("refdiff.process.learned_variance.x__halves__mutmut_1")
        == "refdiff.process.learned_variance._halves"
    )
    name = "refdiff.process.exact.xǁGaussianMixtureǁ__post_init____mutmut_7"
    assert mutants.function_of(name) == "refdiff.process.exact.GaussianMixture.__post_init__"


def test_each_reason_belongs_to_one_mutant(tmp_path):
    assert len(mutants.reasons()) > 50  # each was looked at
    entry = 'before = "a"\nafter = "b"\nwhy = "c"\n'
    file = tmp_path / "reasons.toml"
    file.write_text(f"[[f]]\n{entry}[[g]]\n{entry}")
    assert mutants.reasons(file) == {mutants.Mutant("f", "a", "b"): "c", mutants.Mutant("g", "a", "b"): "c"}
    for wrong in (f"[[f]]\n{entry}[[f]]\n{entry}", '[[f]]\nbefore = "a"\nafter = "b"\nwhy = " "\n'):
        file.write_text(wrong)
        with pytest.raises(ValueError, match="expected one reason for each mutant"):
            mutants.reasons(file)


@pytest.mark.parametrize(
    ("codes", "reasons", "said"),
    [
        ({"m.x_f__mutmut_1": 1, "m.x_f__mutmut_2": 0}, ["m.f", "2"], None),
        ({"m.x_f__mutmut_1": 1, "m.x_f__mutmut_2": 0}, [], "survives without a reason: m.f\n  - before 2"),
        ({"m.x_f__mutmut_1": 1, "m.x_f__mutmut_2": 1}, ["m.f", "2"], "has a reason and no survivor: m.f\n  - before 2"),
        ({"m.x_f__mutmut_1": 0, "m.x_f__mutmut_2": 0}, ["m.f", "1", "2"], "0 of 2 mutants killed"),
        (
            {"m.x_f__mutmut_1": 1, "m.x_f__mutmut_2": None},
            [],
            "1 of 2 mutants killed (100.0% of those tried), 1 not tried",
        ),
    ],
)
def test_a_run_passes_when_reasons_and_survivors_are_the_same(codes, reasons, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "mutants").mkdir()
    (tmp_path / "mutants" / "f.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mutants, "LEAST", 0.5)
    monkeypatch.setattr(mutants, "mutant", lambda name: mutants.Mutant("m.f", f"before {name[-1]}", "after"))
    known = {mutants.Mutant("m.f", f"before {n}", "after"): "no difference" for n in reasons[1:]}
    monkeypatch.setattr(mutants, "reasons", lambda: known)
    assert mutants.main("page.md") == int(said is not None)
    assert (said or "1 of 2 mutants killed (50.0% of those tried)") in capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert page.count("no difference") == len(known.keys() & {mutants.mutant(n) for n, c in codes.items() if c == 0})
