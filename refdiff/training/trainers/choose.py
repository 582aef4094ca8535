"""Which trainer a run gets, and whether this machine can train it."""

from __future__ import annotations

from ... import engines
from ...config import Config
from ...models import Input
from ..state import State
from .interface import Trainer
from .reference import ReferenceTrainer

__all__ = ["check_machine", "trainer"]


def check_machine(config: Config, inputs: dict[str, Input] | None = None) -> None:
    """ValueError or DeviceError, which say what to do, where this machine cannot compute this configuration.

    inputs: the entries of the data; those that the networks read unless given.
    """
    engines.check_dtype(config.engine, config.dtype)
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .cuda import check_memory

        check_memory(config, inputs)
    if engine == "cpu":
        from ...engines import cpu

        cpu.threads()  # what REFDIFF_THREADS says is looked at the first time


def trainer(config: Config, state: State, inputs: dict[str, Input] | None = None) -> Trainer:
    """Who trains with the engine of this configuration, from this state on. DeviceError where there is no such engine.

    inputs: the entries of the data; those that the networks read unless given.
    """
    engine = engines.resolve(config.engine)
    if engine == "cuda":
        from .cuda import CUDATrainer

        return CUDATrainer(config, state, inputs=inputs)
    if engine == "cpu":
        from .cpu import CPUTrainer

        return CPUTrainer(config, state)
    return ReferenceTrainer(config, state)
