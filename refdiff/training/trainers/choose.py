"""Which trainer a run gets, and whether this machine can train it."""

from __future__ import annotations

from ... import engines
from ...config import Config
from ..state import State
from .interface import Trainer
from .reference import ReferenceTrainer

__all__ = ["check_machine", "trainer"]


def check_machine(config: Config) -> None:
    """ValueError or DeviceError, which say what to do, where this machine cannot compute this configuration."""
    engines.check_dtype(config.engine, config.dtype)
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .cuda import check_memory

        check_memory(config)
    if engine == "cpu":
        from ...engines import cpu

        cpu.threads()  # what REFDIFF_THREADS says is looked at the first time


def trainer(config: Config, state: State) -> Trainer:
    """Who trains with the engine of this configuration, from this state on. DeviceError where there is no such engine."""
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .cuda import CUDATrainer

        return CUDATrainer(config, state)
    if engine == "cpu":
        from .cpu import CPUTrainer

        return CPUTrainer(config, state)
    return ReferenceTrainer(config, state)
