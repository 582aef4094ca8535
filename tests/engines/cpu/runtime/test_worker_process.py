"""A worker process: calls, results, errors, and how it ends."""

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from engines.cpu.example_workers import Adder

from refdiff import DeviceError
from refdiff.engines.cpu.runtime import worker_process
from refdiff.engines.cpu.runtime.shared_memory import SharedMemory
from refdiff.engines.cpu.runtime.worker_process import WorkerProcess, acquire, release

pytestmark = pytest.mark.skipif(
    not worker_process.available, reason="this system has no worker process for the cpu engine"
)


@pytest.fixture(scope="module")
def process():
    process = WorkerProcess()
    yield process
    process.close()


@pytest.fixture
def opened(process):
    """The process with an adder that begins with 5."""
    call(process, "open", Adder, 5)
    return process


def call(process, *message):
    process.send(*message)
    return process.receive()


def test_it_keeps_what_the_factory_made_and_returns_what_its_methods_return(opened):
    assert call(opened, "add", 2) == 7
    assert call(opened, "add", 10) == 17
    assert call(opened, "open", Adder, -1) is None
    assert call(opened, "add", 1) == 0


def test_both_sides_write_to_the_same_buffers(process):
    one, two = SharedMemory(("p", "g"), 1000), SharedMemory(("q",), 10)
    for buffers, name in ((one, "g"), (two, "q")):
        call(process, "open", Adder, 0, buffers)
        call(process, "fill", name, 3)
        assert (buffers[name] == 3).all()
    assert not one["p"].any()


def test_an_error_there_is_raised_here_and_the_next_call_is_made(opened):
    with pytest.raises(AttributeError, match="'Adder' object has no attribute 'guess'"):
        call(opened, "guess")
    with pytest.raises(ValueError, match=r"^expected a yes$"):
        call(opened, "refuse", "expected a yes")
    with pytest.raises(TypeError, match="argument"):
        call(opened, "add")
    assert call(opened, "add", 1) == 6


def test_a_factory_that_fails_there_is_an_error_here(process):
    with pytest.raises(TypeError, match="argument"):
        call(process, "open", Adder)
    call(process, "open", Adder, 1)
    assert call(process, "add", 1) == 2


def test_what_cannot_be_sent_there_is_an_error_here(opened):
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        opened.send("add", lambda: 0)
    with pytest.raises(RuntimeError, match=r"lambdas: .*lambda"):
        call(opened, "lambdas")
    assert call(opened, "add", 1) == 6


def test_a_class_that_cannot_be_imported_there_is_an_error_here(opened, monkeypatch):
    module = type(sys)("module_of_nowhere")
    exec("class Local: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "module_of_nowhere", module)
    with pytest.raises(DeviceError, match="does not find what it is sent: No module named .module_of_nowhere"):
        call(opened, "open", module.Local, SharedMemory(("p",), 10))
    assert call(opened, "add", 1) == 6


def test_after_close_it_has_forgotten_what_it_was_sent(opened):
    assert call(opened, "close") is None
    with pytest.raises(AttributeError, match="NoneType"):
        call(opened, "add", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_the_first_process_does_not_end_it(process, number):
    call(process, "close")
    os.kill(process.process.pid, number)
    assert call(process, "close") is None
    assert process.is_alive()


def test_one_that_was_released_is_acquired_again():
    one = acquire()
    release(one)
    assert acquire() is one
    other = acquire()
    assert other is not one
    release(one)
    release(other)


def test_one_that_was_killed_is_named_with_its_exit_status_and_is_not_acquired_again():
    process = WorkerProcess()
    call(process, "close")
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.wait()
    message = r"worker process of the cpu engine ended, exit status -9;.*REFDIFF_THREADS=1"
    for _ in range(2):
        with pytest.raises(DeviceError, match=message):
            call(process, "close")
    release(process)
    other = acquire()
    assert other is not process
    release(other)


def test_a_dead_idle_one_is_not_acquired():
    process = acquire()
    release(process)
    process.process.kill()
    process.process.wait()
    other = acquire()
    assert other is not process
    assert call(other, "close") is None
    release(other)


def test_one_is_closed_in_the_middle_of_a_call():
    process = WorkerProcess()
    call(process, "open", Adder, 0)
    process.send("sleep", 60)
    process.close()
    assert not process.is_alive()


def test_the_fork_of_a_process_leaves_its_worker_process_alone(opened):
    child = os.fork()
    if not child:
        release(opened)
        os._exit(0)
    os.waitpid(child, 0)
    assert call(opened, "add", 1) == 6


def test_numpy_treats_errors_there_as_it_does_here(opened, capfd):
    x = np.float32([3e38])
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        call(opened, "square", x)
    with np.errstate(all="ignore"):
        assert call(opened, "square", x) == np.inf
    kinds = []
    with np.errstate(over="call", call=lambda kind, flag: kinds.append(kind)):
        call(opened, "square", x)
    assert kinds == ["overflow"]
    assert capfd.readouterr().err == ""


def test_files_of_the_current_folder_are_not_imported_there(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong file')")
    monkeypatch.chdir(tmp_path)
    process = WorkerProcess()
    assert call(process, "close") is None
    process.close()


def test_one_that_cannot_be_started_is_an_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(DeviceError, match=r"does not start: .*No such file.*REFDIFF_THREADS=1 works without one"):
        WorkerProcess()


SCRIPT = """
import sys
from refdiff.engines.cpu.runtime.worker_process import acquire, release
process = acquire()
process.send("close")
process.receive()
if "idle" in sys.argv:
    release(process)
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
