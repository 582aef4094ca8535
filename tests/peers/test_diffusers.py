"""The adapters for diffusers: their steps are ours, and docs/audit.md says what is so."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from documents.running import same_output

from refdiff.process import from_beta, leading_steps, uniform_steps
from refdiff.testing.audit import SCHEDULER_CLAIMS, audit, load, options
from refdiff.testing.claim import FAILURES
from refdiff.testing.diffusers import SCHEDULERS, is_scheduler, wrap
from refdiff.testing.scheduler import RefdiffScheduler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

pytestmark = pytest.mark.filterwarnings("ignore")
PAGE = (Path(__file__).parent.parent.parent / "docs" / "audit.md").read_text()
of_the_page = pytest.mark.skipif(diffusers.__version__ != "0.42.1", reason="docs/audit.md is about diffusers 0.42.1")


@of_the_page
@pytest.mark.parametrize(("spacing", "select"), [("linspace", uniform_steps), ("leading", leading_steps)])
def test_uniform_and_leading_steps_are_those_of_diffusers(spacing, select):
    """For every n, but for the uniform n = 1: T here, the first step there."""
    for T in [*range(1, 41), 1000]:
        scheduler = diffusers.DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing, steps_offset=1)
        for n in range(2 if spacing == "linspace" else 1, T + 1):
            scheduler.set_timesteps(n)
            theirs = scheduler.timesteps.numpy()[::-1] + (spacing == "linspace")  # linspace takes no offset
            assert np.array_equal(select(T, n), theirs), (T, n)


def ours(kind, eta):
    return RefdiffScheduler(from_beta(np.linspace(1e-4, 0.02, 1000)), kind, eta)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "given", "eta"),
    [
        ("DDPMScheduler", {"clip_sample": False}, 1.0),
        ("DDIMScheduler", {"clip_sample": False, "eta": 0.5}, 0.5),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 0.0),
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading"}, 1.0),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 1.0),
        ("UniPCMultistepScheduler", {}, 0.0),
    ],
)
def test_a_step_is_ours(name, given, eta, prediction):
    theirs = load(f"diffusers:{name}", {**given, "prediction_type": prediction})
    if name == "EulerAncestralDiscreteScheduler" and prediction == "sample":
        with pytest.raises(NotImplementedError):  # so diffusers itself
            theirs.step(np.ones((1, 2)), 1000, 0, np.ones((1, 2)), np.ones((1, 2)))
        return
    kind = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}[prediction]
    rng = np.random.default_rng(0)
    x0, (eps, z) = rng.uniform(-1, 1, (4, 5)), rng.standard_normal((2, 4, 5))
    steps = [int(t) for t in theirs.timesteps(10)]
    for t, t_prev in zip(steps, [*steps[1:], 0], strict=True):
        x_t = ours(kind, eta).add_noise(x0, eps, t)
        output = ours(kind, eta).target(x0, eps, t)
        theirs.timesteps(10)
        actual = theirs.step(x_t, t, t_prev, output, z)
        assert np.abs(actual - ours(kind, eta).step(x_t, t, t_prev, output, z)).max() < 2e-4


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_noise_is_ours(name):
    theirs = load(f"diffusers:{name}", {"beta_start": 1e-4, "beta_end": 0.02})
    x0, eps = np.random.default_rng(0).standard_normal((2, 3, 4, 4, 2)).astype(np.float32)
    t = np.array([1, 500, 1000])
    actual = theirs.add_noise(x0, eps, t)
    assert actual.dtype == np.float32
    assert np.abs(actual - ours("eps", 1.0).add_noise(x0, eps, t)).max() < 1e-5
    assert np.abs(theirs.add_noise(x0, eps, 500) - ours("eps", 1.0).add_noise(x0, eps, 500)).max() < 1e-5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_adapter_brings_gaussian_data_back(name):
    given = {"skip_prk_steps": True, "set_alpha_to_one": True} if name == "PNDMScheduler" else {}
    subject = load(f"diffusers:{name}", given)
    (verdict,) = audit(subject, match="gaussian data", examples=1)
    assert verdict.holds, verdict.message


def test_noise_is_the_claims_and_the_generator_is_given_back():
    subject = load("diffusers:DDPMScheduler", {})
    drawn = sys.modules["diffusers.schedulers.scheduling_ddpm"].randn_tensor
    steps = subject.timesteps(10)
    x = np.zeros((2, 3))
    actual = [subject.step(x, steps[5], steps[6], x, z) for z in (np.ones((2, 3)), np.zeros((2, 3)), np.ones((2, 3)))]
    assert np.abs(actual[0] - actual[1]).min() > 0.05
    assert np.array_equal(actual[0], actual[2])
    assert sys.modules["diffusers.schedulers.scheduling_ddpm"].randn_tensor is drawn
    with pytest.raises(AssertionError, match="noise: expected shape"):
        subject.step(x, steps[5], steps[6], x, np.ones((2, 2)))
    assert sys.modules["diffusers.schedulers.scheduling_ddpm"].randn_tensor is drawn


def test_a_class_made_from_one_of_theirs_and_an_object_are_wrapped():
    class Mine(diffusers.DDIMScheduler):
        pass

    assert is_scheduler(Mine)
    assert not is_scheduler(RefdiffScheduler)
    assert wrap(Mine, timestep_spacing="trailing", eta=0.5).arguments == {"eta": 0.5}
    assert wrap(Mine(timestep_spacing="trailing"), eta=0.5).timesteps(1) == [1000]


@pytest.mark.parametrize(
    ("target", "given", "message"),
    [
        ("diffusers:DDIMScheduler", {"etta": 1}, "DDIMScheduler takes num_train_timesteps, .*eta, .*got etta"),
        ("diffusers:DDPMScheduler", {"eta": 1}, "got eta"),
        ("diffusers:FlowMatchEulerDiscreteScheduler", {}, "for which none is written"),
        ("diffusers:UNet2DModel", {}, "for which none is written"),
        ("diffusers:DDIMScheduler", {"prediction_type": "score"}, "prediction_type: expected one of epsilon"),
        ("diffusers:DDIMScheduler", {"beta_schedule": "wrong"}, "raised NotImplementedError"),
        ("diffusers:Missing", {}, "diffusers has no Missing; its classes are DDPMScheduler"),
        ("diffusers:DDIMSchedular", {}, "did you mean DDIMScheduler?"),
        ("diffusers:DDIMScheduler", {"eta": "foo"}, "eta: expected a float, got 'foo'"),
        ("diffusers:DDIMScheduler", {"eta": 2}, "eta: expected a number from 0"),
        ("diffusers:DDIMScheduler", {"clip_sample": "foo"}, "clip_sample: expected a bool, got 'foo'"),
        ("diffusers:DDIMScheduler", {"steps_offset": True}, "steps_offset: expected an int, got True"),
        (
            "diffusers:DDIMScheduler",
            {"timestep_spacing": "trail"},
            "timestep_spacing: expected one of leading, .*trailing",
        ),
        ("diffusers:DDPMScheduler", {"variance_type": "large"}, "variance_type: expected one of fixed_small"),
        (
            "diffusers:DPMSolverMultistepScheduler",
            {"variance_type": "learned"},
            "variance_type: .* first three channels",
        ),
        (
            "diffusers:DDIMScheduler",
            {"thresholding": True, "sample_max_value": 1.5},
            "sample_max_value: expected 1 with",
        ),
        (
            "diffusers:EulerDiscreteScheduler",
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
            "timestep_type: expected discrete, got continuous",
        ),
    ],
)
def test_bad_options_are_told_so(target, given, message):
    with pytest.raises(ValueError, match=message):
        load(target, given)


@pytest.mark.parametrize(
    "given",
    [
        {"variance_type": "learned_range"}, {"variance_type": "learned"}, {"variance_type": "fixed_large"},
        {"thresholding": True},
    ],
    ids=str,
)  # fmt: skip
def test_variances_and_thresholds_are_asked_properly(given):
    subject = load("diffusers:DDPMScheduler", given)
    claims = [claim for claim in SCHEDULER_CLAIMS if "sample" not in claim.needs]
    failing = {v.claim.name: v.kind for v in audit(subject, claims, examples=4) if not v.holds}
    assert "fault" not in failing.values(), failing
    (verdict,) = audit(subject, match="gaussian data", examples=1)
    assert verdict.holds, verdict.message


@pytest.mark.parametrize(
    ("name", "schedule", "holds"),
    [
        ("DDPMScheduler", "linear", True), ("DDPMScheduler", "scaled_linear", True), ("DDPMScheduler", "sigmoid", True),
        ("DDPMScheduler", "squaredcos_cap_v2", True), ("HeunDiscreteScheduler", "exp", True),
        ("DDPMScheduler", "laplace", False),
    ],
)  # fmt: skip
def test_schedules_are_held_against_their_published_definition(name, schedule, holds):
    (verdict,) = audit(load(f"diffusers:{name}", {"beta_schedule": schedule}), match="schedule it names")
    assert verdict.holds is holds
    assert holds or (verdict.kind == "fault" and "sqrt(alpha_bar) of laplace" in verdict.message)


def test_betas_of_ones_own_have_no_law():
    assert load("diffusers:DDPMScheduler", {"trained_betas": [0.1, 0.2]}).published_schedule() is None


def test_a_module_here_is_not_taken_for_one_that_diffusers_imports(tmp_path):
    """h2 is imported by httpx where it finds one, filelock by huggingface_hub."""
    for name in "h2", "filelock":
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a local file ran')")
    command = [sys.executable, "-m", "refdiff", "audit", "diffusers:DDIMScheduler", "--match", "bar falls"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 claims hold" in result.stdout


NAMES = re.findall(r"^(\d+)\. (.*)$", PAGE.split("## What fails")[0], re.MULTILINE)
CELL = r"(none|[\d, ]+)"
ROWS = re.findall(rf"^\| `(\w+Scheduler.*?)` \| (\d+) \| {CELL} \| {CELL} \| {CELL} \|$", PAGE, re.MULTILINE)
SCRIPTS = re.findall(r"^### (\d+)\..*?```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_lists_the_claims_and_enough_of_both():
    assert [name for _, name in NAMES] == [claim.name for claim in SCHEDULER_CLAIMS]
    assert len(ROWS) >= 10
    assert len(SCRIPTS) >= 4
    assert [int(n) for n, *_ in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@of_the_page
@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_pages_table_is_so(row):
    line, asked, *failing = row
    name, *given = line.split()
    verdicts = audit(load(f"diffusers:{name}", options(given)), seconds=300)
    numbers = {claim.name: i for i, claim in enumerate(SCHEDULER_CLAIMS, 1)}
    assert len(verdicts) == int(asked)
    for kind, told in zip(FAILURES, failing, strict=True):
        assert [numbers[v.claim.name] for v in verdicts if v.kind == kind] == [int(n) for n in re.findall(r"\d+", told)]


@of_the_page
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script[0])
def test_the_pages_scripts_print_what_it_says(script, capsys):
    _, code, output = script
    exec(code, {})
    printed = capsys.readouterr().out
    assert same_output(printed, output), printed
