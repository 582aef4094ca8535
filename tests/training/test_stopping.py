"""A signal is taken at the end of a step; a second one at once."""

import os
import signal
import threading

import pytest

from refdiff.training import load_state, train
from refdiff.training.stopping import stoppable

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_is_noted_and_the_second_raised(number):
    former = signal.getsignal(number)
    with stoppable() as stop:
        os.kill(os.getpid(), number)
        assert stop.asked == 1
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is former


def test_nobody_asked_nothing_happens():
    with stoppable() as stop:
        stop.check()


def test_another_thread_has_no_signals_to_wait_for():
    found = []

    def work():
        with stoppable() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]


@pytest.mark.parametrize("number", NUMBERS)
def test_training_ends_its_step_and_saves(small, tmp_path, number):
    def ask(measured):
        if measured.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, progress=False, on_step=ask)
    assert load_state(tmp_path)[1].step == 3


def test_a_second_signal_in_the_middle_of_a_step_saves_nothing(small, tmp_path):
    def ask(measured):
        if measured.step == 12:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, progress=False, on_step=ask)
    assert load_state(tmp_path)[1].step == 10  # the last checkpoint
