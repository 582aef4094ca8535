"""Auditing somebody's scheduler: the page that shows it is true, and bad targets, options and schedulers are told so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refdiff.cli import main
from refdiff.testing.audit import audit, load, options, report
from refdiff.testing.scheduler import SCHEDULER_METHODS, RefdiffScheduler

PAGE = Path(__file__).parent.parent.parent / "docs" / "verify-your-own.md"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's Python blocks and its output; its first block is mine.py in the current folder, forgotten afterwards."""
    text = PAGE.read_text()
    python, output = (
        re.findall(r"```python\n(.*?)```", text, re.DOTALL),
        re.findall(r"```text\n(.*?)```", text, re.DOTALL),
    )
    (tmp_path / "mine.py").write_text(python[0])
    monkeypatch.chdir(tmp_path)
    yield python, output[0]
    sys.modules.pop("mine", None)


def told(lines):
    """Verdict and name of each claim, and the message of each that fails; the errors' last digits are the machine's."""
    return [re.sub(r"^(\w+) .*? <= +\S+", r"\1", line) for line in lines.splitlines()[:-1]]


def test_the_planted_fault_is_caught_as_the_page_says(page, capsys):
    _, output = page
    assert main(["audit", "mine:Mine"]) == 1
    assert told(capsys.readouterr().out) == told(output)


def test_without_the_planted_fault_all_claims_hold(page, tmp_path):
    (python, *_), _ = page
    right = python.replace("float(self.abar[t_prev])", "float(self.alpha_bar()[t_prev])")
    assert right != python
    (tmp_path / "mine.py").write_text(right)
    assert [v.message for v in audit(load("mine:Mine")) if not v.holds] == []


def test_the_pages_pytest_suite_runs(page, tmp_path):
    python, output = page
    (tmp_path / "test_mine.py").write_text(python[2])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "-k",
        "noise or clipped or one",  # some of each kind, and not those that take long
        "test_mine.py",
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = [line for line in output.splitlines() if re.search("^[A-Za-z].*(noise|clipped|one)", line)]
    holding = sum(line.startswith("holds") for line in lines)
    failing = len(lines) - holding
    assert f"{failing} failed, {holding} passed" in result.stdout


def test_the_pages_adapter_has_methods_of_ours(page):
    python, _ = page
    assert set(re.findall(r"def (\w+)\(self", python[1])) - {"__init__"} == set(SCHEDULER_METHODS) - {
        "sample",
        "published_schedule",
    }


def test_ours_can_be_audited_by_name(capsys):
    assert (
        main(["audit", "refdiff.testing.scheduler:RefdiffScheduler", "kind=v", "eta=0.5", "--match", "bar falls"]) == 0
    )
    assert "1 of 1 claims hold" in capsys.readouterr().out


@pytest.mark.parametrize("place", range(4))
def test_options_of_the_class_stand_anywhere_among_those_of_the_command(place, capsys):
    flags = [["--match", "bar falls"], ["--dtype", "float32"], ["--json"]]
    words = [["refdiff.testing.scheduler:RefdiffScheduler", "kind=v"], *flags]
    words.insert(1 + place, ["T=7", "eta=0.5"])
    assert main(["audit", *(word for group in words for word in group)]) == 0
    assert [v["claim"] for v in json.loads(capsys.readouterr().out)] == ["alpha bar falls from one"]
    words[1 + place] = ["T=none"]
    assert main(["audit", *(word for group in words for word in group)]) == 2  # so it is looked at


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: target;"),
        (["json:Mine", "--dtypes", "float32", "a=1"], "unrecognized arguments: --dtypes;"),
    ],
)
def test_what_the_command_lacks_is_told(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["audit", *arguments])
    assert message in capsys.readouterr().err


def test_what_is_declared_on_the_command_line_is_taken_for_granted(module, capsys):
    def told(*arguments):
        main(["audit", "theirs:AllBeta", "T=30", *arguments, "--json"])
        return {v["claim"]: v["kind"] for v in json.loads(capsys.readouterr().out)}

    double, fresh = (
        "double precision data are stepped in double precision",
        "a steps fresh noise is at most the posteriors",
    )
    actual = told("--match", "step")
    assert actual[double] is None
    assert actual[fresh] == actual["a run has as many steps as asked each before the last"] == "convention"
    assert "a run of one step has one" not in actual
    actual = told("--match", "step", "--variance", "beta", "--all-steps", "--dtype", "float32")
    assert double not in actual
    assert actual.pop("the last step hides the data") == "convention"  # of 30 steps, which is another choice
    assert set(actual.values()) == {None}
    assert told("--match", "fresh noise", "--variance", "posterior", "--all-steps") == {fresh: "fault"}


def test_what_the_scheduler_warns_of_is_summed_up(module, capsys):
    assert main(["audit", "theirs:Warns", "--match", "bar falls"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "warned 1 times: RuntimeWarning: divide by zero encountered in divide" in told.out


def test_the_report_as_json_has_no_nan():
    class Broken(RefdiffScheduler):
        def alpha_bar(self):
            return np.array([1.0, np.nan])

    told = json.loads(report(audit(Broken(), match="bar falls"), as_json=True))
    assert told[0]["holds"] is False
    assert told[0]["worst_error"] is None
    assert told[0]["message"] == "alpha_bar(): expected finite numbers, got NaN or infinity in 1 of 2"


def test_options_are_json_or_text():
    actual = options(["eta=0.5", "clip_sample=false", "other=True", "n=3", "spacing=trailing", "none=None", "text=a=b"])
    assert actual == {
        "eta": 0.5, "clip_sample": False, "other": True, "n": 3, "spacing": "trailing", "none": None, "text": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("argument", ["eta", "=1", "a-b=1", ""])
def test_an_option_without_a_name_is_told_so(argument):
    with pytest.raises(ValueError, match="expected name=value"):
        options([argument])


MODULE = """
import numpy as np
from refdiff.testing.scheduler import RefdiffScheduler

ready = RefdiffScheduler()

def make(eta=1.0):
    return RefdiffScheduler(eta=eta)

class Nothing:
    def step(self, output, t, x):
        return x

class Raises:
    def __init__(self):
        raise RuntimeError("no luck")

class AllBeta(RefdiffScheduler):
    def __init__(self, T):
        super().__init__(T=T)

    def timesteps(self, n):
        return list(range(self.schedule.T, 0, -1))

    def step(self, x_t, t, t_prev, output, noise):
        mean = super().step(x_t, t, t_prev, output, 0 * noise)
        return mean + self.schedule.beta[t].astype(noise.dtype) ** 0.5 * noise if t_prev else mean

class Warns(RefdiffScheduler):
    def alpha_bar(self):
        np.ones(3) / np.zeros(3)
        return super().alpha_bar()

class Swallows(RefdiffScheduler):
    def __init__(self, **options):
        super().__init__(eta=options.get("eta", 1.0))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "wrong.py").write_text("1 +")
    (tmp_path / "json.py").write_text("raise SystemExit('the local json.py ran')")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    assert sys.path == before
    sys.modules.pop("theirs", None)


def test_a_scheduler_is_a_class_a_function_or_an_object(module):
    assert load("theirs:make", {"eta": 0.5}).eta == 0.5
    assert load("theirs:RefdiffScheduler", {"kind": "v"}).kind == "v"
    assert load("theirs:ready").eta == 1.0
    assert load("theirs:Swallows", {"eta": 0.5}).eta == 0.5


def test_a_module_here_is_not_taken_for_a_librarys(module, tmp_path):
    """Nor does one of ours hide what theirs imports."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the local colorsys.py ran')")
    (tmp_path / "not_installed.py").write_text("raise SystemExit('the local not_installed.py ran')")
    library = tmp_path / "libraries" / "a_library"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("try:\n    import not_installed\nexcept ImportError:\n    pass\n")
    (tmp_path / "imports.py").write_text(
        "import a_library, colorsys, theirs\nready, rgb = theirs.ready, colorsys.rgb_to_hsv\n"
    )
    for first in ("", str(tmp_path), "."):
        code = f"from refdiff.testing.loading import load; sys.path.insert(0, {first!r}); load('imports:ready')"
        # '' is that of -c, taken away before json is asked for
        code = f"import sys; sys.path.remove(''); sys.path.append('libraries'); {code}"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("target", "given", "message"),
    [
        ("theirs", {}, "expected module:class"),
        (":make", {}, "expected module:class"),
        ("theirs:", {}, "expected module:class"),
        ("nowhere_at_all:X", {}, "needs the module 'nowhere_at_all', which is not found"),
        ("wrong:X", {}, "raised SyntaxError"),
        ("theirs:Missing", {}, "has no Missing; its classes are Nothing, Raises, AllBeta"),
        ("theirs:Nothing", {}, r"alpha_bar and as many as it can of: alpha_bar\(\), add_noise\(x0, eps, t\)"),
        ("theirs:Raises", {}, "raised RuntimeError: no luck"),
        ("theirs:make", {"etta": 1}, "theirs:make takes eta, got etta; did you mean eta?"),
        ("theirs:make", {"eta": 2}, "eta: expected a number from 0"),
        ("theirs:make", {"eta": "foo"}, "eta: expected a number from 0 .* got foo"),
        ("theirs:RefdifScheduler", {}, "its classes are Nothing, Raises, AllBeta, Warns, Swallows"),
        ("theirs:Nothin", {}, "did you mean Nothing"),
        ("theirs:Exits", {}, "has no Exits"),
        ("theirs:Swallows", {"etta": 0.3}, "etta=0.3 changes nothing in what theirs:Swallows makes"),
        ("theirs.py:make", {}, "expected a module, with dots and without .py, got 'theirs.py'; .* say theirs:make"),
        ("./theirs.py:make", {}, "say theirs:make"),
        ("folder/theirs:make", {}, "expected a module, with dots"),
        ("json:Mine", {}, "json has no Mine; .*; the json.py here is hidden by .*__init__.py: rename it"),
        ("theirs:ready", {"eta": 0}, "already made, which takes none"),
    ],
)
def test_a_bad_target_or_option_is_told_so(module, target, given, message):
    with pytest.raises(ValueError, match=message):
        load(target, given)


def test_what_cannot_be_asked_is_told_so():
    with pytest.raises(ValueError, match="A scheduler has alpha_bar"):
        audit(object())
    with pytest.raises(ValueError, match="part of the name of a claim, got 'nonsense'"):
        audit(RefdiffScheduler(), match="nonsense")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "alpha_bar(): expected an array of real numbers, got NoneType"),
        (np.ones((2, 2)), "alpha_bar(): expected shape (T+1,), got (2, 2)"),
        (np.ones(1), "alpha_bar(): expected shape (T+1,), got (1,)"),
        (["a", "b"], "alpha_bar(): expected an array of real numbers, got list"),
        (np.array([1.0, 0.5, 0.6]), "alpha_bar at t = 2: expected from 0 to less than 0.5, got 0.6"),
        (np.array([0.9, 0.5]), "alpha_bar_0: expected 1, that of the data, got 0.9"),
    ],
)
def test_a_wrong_alpha_bar_is_told_in_a_sentence(answer, message):
    class Wrong:
        def alpha_bar(self):
            return answer

    verdicts = audit(Wrong(), match="bar falls")
    assert message in verdicts[0].message


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "timesteps({}): expected {} steps, got shape (0,)"),
        ([[3]], "expected {} steps, got shape (1, 1)"),
        ([1001], "timesteps({}): expected steps within 1 .. 1000, got 1001 .. 1001"),
        ([0], "timesteps({}): expected steps within 1 .. 1000, got 0 .. 0"),
        ([5, 4, 3], "timesteps({}): expected {} steps, got 3"),
    ],
)
def test_wrong_timesteps_are_told_in_a_sentence(steps, message):
    class Wrong(RefdiffScheduler):
        def timesteps(self, n):
            return steps

    for n, match in ((2, "as many steps"), (1, "of one step has one")):
        (verdict,) = audit(Wrong(), match=match)
        assert message.format(n, n) in verdict.message
        assert verdict.kind == "fault"


def test_a_scheduler_that_exits_is_a_verdict():
    class Exits(RefdiffScheduler):
        def timesteps(self, n):
            sys.exit("enough")

    verdicts = {v.claim.name: v for v in audit(Exits(), match="all")}
    assert "SystemExit: enough" in verdicts["asked for all steps a run has them all"].message
    assert len(verdicts) > 1


def test_a_target_of_no_known_kind_is_told_so():
    """The posterior's mean is none that a network is asked for here."""
    verdicts = audit(RefdiffScheduler(kind="mu"), match="one point", examples=1)
    assert "expected that of eps, x0, v, score, got 0.70" in verdicts[0].message
    assert [
        v.message for v in audit(RefdiffScheduler(kind="score"), match="one point", examples=2) if not v.holds
    ] == []
