"""Hypothesis profiles: `repeat` draws the same cases every time (the default), `random` new ones (`make check`), and
`mutants` few, since each mutant of the code runs them (`make mutants`). Arrays that are not NumPy's. And how many
threads the CPU engine uses."""

from collections.abc import Callable
from importlib import import_module

import pytest
from hypothesis import HealthCheck, settings

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("repeat", derandomize=True, max_examples=30, **common)
settings.register_profile("mutants", derandomize=True, max_examples=10, database=None, **common)
settings.register_profile("random", derandomize=False, max_examples=60, **common)


@pytest.fixture(scope="session")
def library():
    """An array library other than NumPy: the one that has what the array API standard says, and nothing else. The tests of
    tests/peers ask the same of PyTorch and JAX."""
    return pytest.importorskip("array_api_strict", reason="array-api-strict, of the extra `test`, is not installed")


@pytest.fixture
def use_threads(monkeypatch) -> Callable[[int], None]:
    """use_threads(8), also on a machine with fewer cores."""
    return lambda n: monkeypatch.setattr(
        import_module("refdiff.engines.cpu.runtime.thread_pool").settings, "threads", n
    )


SMALL = ["model.width=8", "train.batch=8", "train.steps=20", "train.warmup=5", "train.grid_every=0",
         "train.checkpoint_every=10", "train.log_every=1", "sample.steps=4"]  # fmt: skip


@pytest.fixture
def small():
    """A run small enough for a test: a U-Net of width 8, batches of 8 digits."""
    from refdiff.config import Config

    return Config.resolve("digits", changes=SMALL)


@pytest.fixture
def tiny():
    """Smaller still, for the emulator: batches of 2."""
    from refdiff.config import Config

    changes = [
        "model.width=8",
        "model.groups=4",
        "train.batch=2",
        "train.steps=20",
        "train.warmup=2",
        "engine=reference",
    ]
    return Config.resolve("digits", changes=changes)


@pytest.fixture
def some_processes(monkeypatch, use_threads) -> Callable[[int], None]:
    """some_processes(4): with as many threads, a batch is split between up to 4 processes, however little the work is."""
    from refdiff.engines.cpu.runtime import data_parallel

    if not data_parallel.available:
        pytest.skip("this system has no worker process for the cpu engine")
    monkeypatch.setattr(data_parallel, "WORTH", 0)
    return use_threads


@pytest.fixture
def two_processes(some_processes):
    some_processes(2)
