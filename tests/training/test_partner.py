"""The second process: questions, answers, errors, and how it ends."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from refdiff import DeviceError
from refdiff.training import partner
from refdiff.training.halves import Half
from refdiff.training.partner import Partner, give_back, take
from refdiff.training.shared import Shared

pytestmark = pytest.mark.skipif(not partner.available, reason="this system has no second process for the cpu engine")


@pytest.fixture(scope="module")
def helper():
    helper = Partner()
    yield helper
    helper.end()


@pytest.fixture
def opened(helper, small):
    """A half there and one here, of the same buffers."""
    config = small.changed(["engine=cpu"])
    buffers = Shared(("p", "g0", "g1"), 100_000)
    here = Half(config, config.schedule.build(), buffers, 1)
    helper.ask("open", config, here.schedule, buffers, 1)
    helper.answer()
    return helper, here


def answer(helper, *question):
    helper.ask(*question)
    return helper.answer()


def test_an_answer_is_what_the_method_returns_here(opened):
    helper, here = opened
    here.buffers["g0"][...] = np.random.default_rng(0).standard_normal(100_000)
    assert answer(helper, "squares", 1, False) == here.squares(1, False)


def test_both_sides_write_to_the_same_buffers(opened):
    helper, here = opened
    here.buffers["g0"][...], here.buffers["g1"][...] = 1, 2
    answer(helper, "squares", 1, True)
    assert here.buffers["g0"][-1] == 3
    assert here.buffers["g0"][0] == 1


def test_an_error_there_is_raised_here_and_the_next_question_is_answered(opened):
    helper, here = opened
    with pytest.raises(AttributeError, match="'Half' object has no attribute 'guess'"):
        answer(helper, "guess")
    wrong = "predict", np.zeros((2, 8, 8, 5), np.float32), np.ones(2, int)
    with pytest.raises(AssertionError) as raised_here:
        getattr(here, wrong[0])(*wrong[1:], True)
    with pytest.raises(AssertionError) as raised_there:
        answer(helper, *wrong, True)
    assert str(raised_there.value) == str(raised_here.value) != ""
    assert len(answer(helper, "squares", 0, False)) == len(here.squares(0, False))


def test_after_close_it_has_no_half(opened):
    helper, _ = opened
    assert answer(helper, "close") is None
    with pytest.raises(AttributeError, match="NoneType"):
        answer(helper, "squares", 0, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_the_first_process_does_not_end_it(helper, number):
    answer(helper, "close")
    os.kill(helper._process.pid, number)
    assert answer(helper, "close") is None
    assert helper._process.poll() is None


def test_an_idle_one_is_taken_again():
    one = take()
    give_back(one)
    assert take() is one
    other = take()
    assert other is not one
    give_back(one)
    give_back(other)


def test_one_that_was_killed_is_named_with_its_exit_status_and_is_not_idle():
    helper = Partner()
    answer(helper, "close")
    os.kill(helper._process.pid, signal.SIGKILL)
    helper._process.wait()
    message = r"second process of the cpu engine ended, exit status -9;.*REFDIFF_THREADS=1"
    for _ in range(2):
        with pytest.raises(DeviceError, match=message):
            answer(helper, "close")
    give_back(helper)
    assert helper not in partner._idle


def test_a_dead_idle_one_is_not_taken():
    helper = take()
    give_back(helper)
    helper._process.kill()
    helper._process.wait()
    other = take()
    assert other is not helper
    assert answer(other, "close") is None
    give_back(other)


def test_the_fork_of_a_process_leaves_its_partner_alone(opened):
    helper, here = opened
    child = os.fork()
    if not child:
        give_back(helper)
        os._exit(0)
    os.waitpid(child, 0)
    assert answer(helper, "squares", 0, False) == here.squares(0, False)


def test_numpy_treats_errors_there_as_it_does_here(opened, capfd):
    helper, here = opened
    here.buffers["g0"][...] = here.buffers["g1"][...] = 3e38
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        answer(helper, "squares", 0, True)
    with np.errstate(all="ignore"):
        answer(helper, "squares", 0, True)
    assert capfd.readouterr().err == ""


def test_files_of_the_current_folder_are_not_imported_there(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong file')")
    monkeypatch.chdir(tmp_path)
    helper = Partner()
    assert answer(helper, "close") is None
    helper.end()


def test_one_that_cannot_be_started_is_an_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(DeviceError, match=r"does not start: .*No such file.*REFDIFF_THREADS=1 works without one"):
        Partner()


SCRIPT = """
import sys
from refdiff.training.partner import give_back, take
partner = take()
partner.ask("close")
partner.answer()
if "idle" in sys.argv:
    give_back(partner)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["killed", "idle"])
def test_it_ends_with_the_first_process(how):
    """Both hold the pipe that is read here: its end shows that both have ended."""
    first = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, text=True,
    )  # fmt: skip
    with first:
        assert first.stdout.readline() == "ready\n"
        if how == "killed":
            first.kill()
        out, errors = first.communicate(timeout=20)
    assert (out, errors) == ("", "")
    assert first.returncode == (-signal.SIGKILL if how == "killed" else 0)
