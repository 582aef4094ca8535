"""Fake peers: programs that speak the protocol and do one thing wrong."""

import sys

import pytest

from refdiff.benchmark import PeerProcess

FAKE = """
import os, sys, time
import numpy as np
from refdiff.benchmark import serve

class Fake:
    def __init__(self, how):
        self.how, self.turns = how, 0
    def about(self):
        return {"how": self.how, "pid": os.getpid()}
    def prepare(self, case):
        print("a library talks on stdout", flush=True)
        if self.how == "slow":
            time.sleep(60)
        if self.how == "crash":
            sys.stderr.write("bus error in the middle of it\\n")
            sys.stderr.flush()
            os._exit(3)
        if self.how == "raises":
            raise ValueError("no such\\noperation")
        y = np.arange(1.0, 5.0)
        if self.how == "nan":
            y[2] = np.nan
        if self.how == "differs":
            y = y * 1.01
        if self.how == "longer":
            y = np.arange(1.0, 6.0)
        return {"y": y, "": {"bytes": 32}}
    def time(self, repeats):
        if self.how == "nan times":
            return [float("nan")] * repeats
        self.turns += 1
        if self.how == "tires" and self.turns > 2:
            raise RuntimeError("not any more")
        return [0.002 if self.how == "twice" else 0.001] * repeats

serve(Fake(sys.argv[1]))
"""


@pytest.fixture
def fake(tmp_path):
    """fake("crash") is a PeerProcess that does it."""
    script, started = tmp_path / "fake.py", []
    script.write_text(FAKE)

    def start(how):
        started.append(PeerProcess([sys.executable, str(script), how]))
        started[-1].start()
        return started[-1]

    yield start
    for peer in started:
        peer.close()
