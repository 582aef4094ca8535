"""What tests of several folders are made with, once."""

import shutil
from pathlib import Path

import mpmath
import numpy as np
import pytest

from refdiff.cli import main

ROOT = Path(__file__).parent.parent  # of the checkout
emulated = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
exact = np.frompyfunc(mpmath.mpf, 1, 1)  # float64 arrays as numbers of the working precision


def normal(seed, *shape):
    """Standard normal numbers of this shape."""
    return np.random.default_rng(seed).standard_normal(shape)


def draws(seed, shape, n=2):
    """n arrays of standard normal numbers.   -> (n, *shape)"""
    return normal(seed, n, *shape)


def images(n=3, h=4, w=5, c=1, seed=0):
    """Uniform on [-1, 1].   -> (n, h, w, c) float32"""
    return np.random.default_rng(seed).uniform(-1, 1, (n, h, w, c)).astype(np.float32)


def line(*words):
    """A pattern for a message of one line that holds the words in that order."""
    return r"\A" + "".join(rf"[^\n]*{word}" for word in words) + r"[^\n]*\Z"


def fails(capsys, *arguments):
    """The one line on stderr of a command that ends with status 2."""
    capsys.readouterr()
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as end:  # argparse
        status = end.code
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("refdiff: error: ")
    return lines[0]


def ends_and_middle(schedule):
    """1, 2, T // 2, T - 1 and T, those of them that there are."""
    T = schedule.T
    return sorted({1, 2, T // 2, T - 1, T} & set(range(1, T + 1)))


def dense(x, p):
    """x W + b."""
    return x @ p["weight"] + p["bias"]


def silu(x):
    return x / (1 + np.exp(-x))
