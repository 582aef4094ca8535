"""Training on the cpu engine: weights, moments and averages are flat buffers that each step writes in place."""

from __future__ import annotations

import numpy as np

from ...config import RULES, Config, learns
from ...engines import cpu
from ...engines.cpu.runtime.blocks import trim_heap
from ...engines.cpu.runtime.data_parallel import DataParallel, gradient_buffers
from ...engines.cpu.runtime.shared_memory import SharedMemory
from ...errors import TrainingError
from ...models import Batch
from ...objectives import Objective, objective_name
from ...random import Key
from ..frozen import frozen_trees
from ..optimiser import learning_rate
from ..state import TREES, State
from .checking import check_data, remembered
from .cpu_worker import DataParallelWorker, Move, packing_of
from .interface import Step, check_finite
from .reference import joined

__all__ = ["CPUTrainer"]


class CPUTrainer:
    """The trainer of the cpu engine: what `train_step` computes, but for rounding, and without a copy of the weights.

    The bits follow from the number of shards of a batch, a power of two; not from the number of processes, at most as many.
    A process computes its shards in one pass, and one after another where in a pass the sums would not be those of the
    shards: where a parameter is used twice, a sum of parameters is used by all samples, or a sample knows of all others.
    """

    def __init__(self, config: Config, state: State) -> None:
        self.config, self.first, self.failed = config, state.step, False
        self.rules = {name: network.rule.resolved(config.train) for name, network in config.networks.items()}
        self.packing = packing_of(config, frozen=False)
        self.buffers = SharedMemory((*TREES, *gradient_buffers(config.shards)), self.packing.size)
        for name in TREES:
            self.packing.pack(state.trees[name], self.buffers[name])
        packing = packing_of(config, frozen=True)
        frozen = SharedMemory(("p",), packing.size)
        packing.pack(frozen_trees(config, state), frozen["p"])
        self._state = State(
            state.step, state.samples_seen, {}, dict(state.updates), dict(state.memory), state.numbers, state.digests
        )
        self._one_by_one = set[str]()  # objectives whose shards are a pass each
        self.parallel = DataParallel(
            DataParallelWorker, (config, self.buffers, frozen), self.packing.size, config.shards
        )

    def step(self, data: Batch, wait: bool = True) -> Step:
        self._check_whole()
        n, state = check_data(self.config, data), self._state
        if state.step == self.first:
            trim_heap()  # the state that the run began from, as large as the buffers here
        number = state.step + 1
        data = {k: cpu.array(a) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for k, a in data.items()}
        turns, step = self.config.objective.turns(number), Step(number, {}, {}, {})
        last = {name: i for i, objective in enumerate(turns) for name in objective.trains}
        processes = len(self.parallel.parts(n))
        for turn, objective in enumerate(turns):
            name = objective_name(objective)
            terms, buffers = self._gradient(objective, turn, data, number)
            prefix = f"{name}." if len(turns) > 1 else ""
            step.terms.update({prefix + term: float(np.mean(value)) for term, value in terms.items()})
            regions = [self.packing.region(trained) for trained in objective.trains]
            norms = dict(zip(objective.trains, self.parallel.norms(processes, regions, buffers), strict=True))
            check_finite(number, step.terms, norms)
            self.failed = True  # until the whole step is done
            for trained, region in zip(objective.trains, regions, strict=True):
                state.updates[trained] += 1
                move = self._move(trained, number, norms[trained], last[trained] == turn)
                if learns(move.rule.rule):
                    step.norms[trained], step.learning_rates[trained] = norms[trained], move.rate
                self.parallel.run([("move", i, processes, region, move) for i in range(processes)])
            if name in state.memory:
                state.memory[name] = remembered(objective, state.memory[name], terms)
        self._follow(number, last)
        state.step, state.samples_seen, self.failed = number, state.samples_seen + n, False
        return step

    def _gradient(self, objective: Objective, turn: int, data: Batch, number: int) -> tuple[dict[str, np.ndarray], int]:
        """The terms of the whole batch in order, and the number of buffers in which the gradients are then."""
        n, name = len(next(iter(data.values()))), objective_name(objective)
        parts, memory = self.parallel.parts(n), self._state.memory.get(name, {})
        shards = self.config.shards // len(parts)
        calls = [
            (turn, {k: a[part] for k, a in data.items()},
             Key(self.config.seed, number, part.start, n).under(name), memory)
            for part in parts
        ]  # fmt: skip
        gathered: Batch = {}
        if type(objective).gather is not Objective.gather:
            self._one_by_one.add(name)
            found = self.parallel.run([("gather", *call, shards) for call in calls])
            gathered = {f"all_{k}": a for k, a in joined([batch for own in found for batch in own]).items()}
        while True:
            passes = shards if name in self._one_by_one else 1
            done = self.parallel.run([
                ("gradient", i * passes, passes, shards // passes, *call, gathered) for i, call in enumerate(calls)
            ])  # fmt: skip
            if passes == shards or not any(used_twice for *_, used_twice in done):
                break
            self._one_by_one.add(name)
        names = done[0][0]
        values = done[0][1] if len(done) == 1 else np.concatenate([values for _, values, _ in done], axis=1)
        return dict(zip(names, values, strict=True)), len(parts) * passes

    def _move(self, name: str, number: int, norm: float, last: bool) -> Move:
        """How a network moves in the step of this number; norm: of its gradient; last: whether for the last time."""
        rule, train = self.rules[name], self.config.train
        rate = learning_rate(number, train.steps, rule.learning_rate, train.warmup, train.decay)
        scale = min(1.0, rule.max_grad_norm / norm) if rule.max_grad_norm and norm else 1.0
        decay = min(rule.ema_decay, (1 + number) / (10 + number)) if last else 1.0
        return Move(rule, RULES[rule.rule], self._state.updates[name], rate, scale, decay)

    def _follow(self, number: int, last: dict[str, int]) -> None:
        """Targets follow their networks, and the averages of networks that did not move this time move."""
        for name, rule in self.rules.items():
            if rule.rule == "follow":
                p, of = (self.buffers["p"][self.packing.region(n)] for n in (name, rule.of))
                p += np.float32(1 - rule.decay) * (of - p)
                cpu.forget_weights()
            elif learns(rule.rule) and name not in last:
                d = np.float32(min(rule.ema_decay, (1 + number) / (10 + number)))
                p, ema = (self.buffers[tree][self.packing.region(name)] for tree in ("p", "ema"))
                ema += (1 - d) * (p - ema)

    def state(self) -> State:
        self._check_whole()
        s = self._state
        trees = {}
        for name in TREES:
            whole = self.packing.unpack(self.buffers[name].copy())
            trees[name] = {n: tree for n, tree in whole.items() if name == "p" or learns(self.rules[n].rule)}
        return State(s.step, s.samples_seen, trees, dict(s.updates), dict(s.memory), s.numbers, s.digests)

    def _check_whole(self) -> None:
        """TrainingError after half a step."""
        if self.failed:
            raise TrainingError(f"step {self._state.step + 1}: half of it is done, and it cannot be kept")
