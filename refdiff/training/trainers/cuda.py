"""Training on a GPU: the whole step, from the noise to the moving average, is captured once as a graph and replayed.

Nothing of a step depends on the host but its batch: the number of the step, the rate, t and every random number are worked
out on the device. All memory of a step comes from one arena, so each step finds the same addresses. The host need not wait
for a step: the batch goes from pinned memory, and the small record comes back to it while the next step is queued. Only
where the objective has a memory does it wait: that goes with the batch, and comes of what each sample cost the step before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import models
from ...config import Config
from ...engines import cuda
from ...engines.cuda.runtime.arena import Arena
from ...engines.cuda.runtime.captured_step import CapturedStep
from ...engines.cuda.runtime.context import Array
from ...engines.cuda.runtime.device import Device
from ...engines.cuda.runtime.dry_run import DryRunDevice
from ...engines.cuda.runtime.flat_optimiser import SCALARS, FlatOptimiser, OptimiserSettings
from ...engines.cuda.runtime.memory import require_memory
from ...errors import TrainingError, option
from ...models import Batch, Input, Network, Tree, flatten, unflatten
from ...models.packing import Packing
from ...objectives import Objective, objective_name
from ...random import Key
from ...sampling.cuda import on_device
from ..frozen import frozen_trees
from ..state import TREES, State
from .checking import both, check_data, check_gradients, check_terms, remembered
from .interface import Step, check_finite

__all__ = ["CUDATrainer", "Plan", "check_memory", "check_supported", "plan"]

DTYPES = {"float": np.float32, "int": np.int32}


def check_supported(config: Config) -> None:
    """ValueError for what an objective or a rule asks for and this trainer does not do."""
    objective, rest = config.objective, f"take {option('engine', 'cpu')}"
    for name, network in config.networks.items():
        rule = network.rule.rule
        if rule not in ("adamw", "frozen"):
            raise ValueError(f"networks.{name}.rule: expected adamw or frozen on engine cuda, got {rule}; {rest}")
        if rule == "adamw" and name not in objective.trains:
            raise ValueError(
                f"networks.{name}: expected a network that {objective_name(objective)} trains on engine cuda, got one that "
                f"it does not; {rest}"
            )
    for name in ("gather", "turns"):
        if getattr(type(objective), name) is not getattr(Objective, name):
            raise ValueError(
                f"objective: expected one without `{name}` on engine cuda, got {objective_name(objective)}; {rest}"
            )


class Plan(NamedTuple):
    """What is known of a step before it runs. nbytes: of device memory that training takes, in its arena; tables: beside it,
    in the tables that the objective looks numbers up in; terms: the names of what is measured."""

    nbytes: int
    tables: int
    terms: tuple[str, ...]


def plan(config: Config, inputs: dict[str, Input] | None = None) -> Plan:
    """A step is run on a device that runs nothing. inputs: the entries of the data; those that the networks read unless
    given."""

    def dry(known: Plan) -> CUDATrainer:
        device = DryRunDevice()
        return CUDATrainer(config, None, device, Arena(device, 1 << 40), inputs, known)

    found = Plan(0, 0, ("loss",))
    found = found._replace(terms=dry(found).terms())
    worker = dry(found)
    worker.launch()
    assert isinstance(worker.device, DryRunDevice)
    return found._replace(nbytes=worker.arena.extent, tables=worker.device.reserved - worker.arena.reserved)


def check_memory(config: Config, inputs: dict[str, Input] | None = None, device: Device | None = None) -> Plan:
    """The plan of a training that fits this device, the first GPU unless given. DeviceError if it has not so much memory."""
    check_supported(config)
    device, found = device or cuda.current().device, plan(config, inputs)
    advice = f"lower train.batch (now {config.train.batch})"
    need = require_memory(device, found.nbytes + found.tables, "training needs", advice)
    return found._replace(nbytes=need - found.tables)


def entries_of(config: Config, inputs: dict[str, Input] | None = None) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each entry of a batch that goes to the device: those that the objective reads, or all where it does
    not say which. inputs: the entries of the data; unless given, what is read."""
    networks = {name: network.model for name, network in config.networks.items()}
    read = config.objective.reads(networks)
    if inputs is None:
        given = read or {name: entry for model in networks.values() for name, entry in models.inputs(model).items()}
    else:
        given = {name: entry for name, entry in inputs.items() if name in read} if read else inputs
    return {name: ((config.train.batch, *entry.shape), DTYPES[entry.kind]) for name, entry in given.items()}


class CUDATrainer:
    """The trainer of the CUDA engine. The first step runs launch by launch, the second is captured, the others replay it.

    A step may be queued while the one before it runs, no more: its record is looked at by the next call at the latest. A
    step whose terms or gradients are not finite writes nothing in any network, nor does any after it, so what `state` gives
    is always whole.
    """

    def __init__(
        self,
        config: Config,
        state: State | None,
        device: Device | None = None,
        arena: Arena | None = None,
        inputs: dict[str, Input] | None = None,
        known: Plan | None = None,
    ) -> None:
        """state: where to begin; None: memory without values, for `plan`. device: the first GPU unless given. arena: one of
        that device; unless given, one as large as training needs: DeviceError, with the numbers, if the device has less.
        inputs: the entries of the data. known: what `plan` found, if it was asked."""
        check_supported(config)
        self.config, self.objective = config, config.objective
        self.device = device or cuda.current().device
        self.entries = entries_of(config, inputs)
        if arena is None:
            known = check_memory(config, inputs, self.device)
        self.names = (known or plan(config, inputs)).terms
        name = objective_name(self.objective)
        self.memory = (state.memory.get(name) if state else None) or self.objective.remember()
        self.arena = arena or Arena(self.device, known.nbytes if known else 0)
        self.context = cuda.Context(self.device, self.arena)
        self.done, self.samples_seen = (state.step, state.samples_seen) if state else (0, 0)  # of steps that were seen
        # Rows of 16 bytes, which are copied at once, come first.
        samples = (len(self.names), -(-config.train.batch // 4) * 4)
        record: list[Any] = [("samples", "f4", samples)] if self.memory else []
        record += [(f"scalars {name}", "f4", len(SCALARS)) for name in self.objective.trains]
        record += [("terms", "f4", len(self.names)), ("bad", "i4")]
        given = {name: (leaf.shape, leaf.dtype) for name, leaf in self._remembered().items()}
        self.captured = CapturedStep(self.context, self.entries | given, record, self.done)
        with cuda.use(self.context):
            self.optimisers = {name: self._optimiser(name, state) for name in self.objective.trains}
            n = config.train.batch
            self._mean = cuda.array(np.full((n, 1), 1 / n, np.float32)), cuda.array(np.zeros(1, np.float32))
            self.frozen = self._frozen_weights(state)
        if state:
            expected = dict.fromkeys(self.optimisers, state.step)
            if state.updates != expected:
                raise ValueError(
                    f"state: expected networks updated once a step, {expected}, got {state.updates}; "
                    f"take {option('engine', 'cpu')}"
                )
            self._rest = dict(state.memory), state.numbers, state.digests

    def step(self, data: Batch, wait: bool = True) -> Step | None:
        check_data(self.config, data)
        batch = {name: np.asarray(data[name], dtype) for name, (_, dtype) in self.entries.items()}
        self._check(self.captured.step(self.body, batch | self._remembered()))
        return self._check(self.captured.settle()) if wait or self.memory else None

    def state(self) -> State:
        self._check(self.captured.settle())
        trees: dict[str, dict[str, Tree]] = {tree: {} for tree in TREES}
        for name, optimiser in self.optimisers.items():
            packing = packing_of(self.config, name)
            for tree in TREES:
                trees[tree][name] = packing.unpack(cuda.host(getattr(optimiser.state, tree)))
        memory, numbers, digests = self._rest
        if self.memory:
            memory = memory | {objective_name(self.objective): self.memory}
        updates = dict.fromkeys(self.optimisers, self.done)
        return State(self.done, self.samples_seen, trees, updates, dict(memory), numbers, digests)

    def launch(self) -> None:
        """Queue a step on the batch that is there; nobody looks at its record."""
        self.captured.launch(self.body)

    def body(self) -> None:
        """What one step launches: the objective, on each shard of the batch, then the optimisers."""
        n, shards = self.config.train.batch, self.config.shards
        done = [self._shard(i * (n // shards), n // shards) for i in range(shards)]
        terms = {name: joined([terms[name] for terms, _ in done]) for name in done[0][0]}
        assert tuple(terms) == self.names, f"terms: expected {self.names}, got {tuple(terms)}"
        gradients = [g for _, g in done]
        while len(gradients) > 1:  # neighbours first
            gradients = [models.add(cuda, *gradients[i : i + 2]) for i in range(0, len(gradients), 2)]
        means = [cuda.linear(cuda.reshape(term, (1, n))[0], *self._mean)[0] for term in terms.values()]
        field = self.captured.field("terms")
        extra = [(mean, rows_of(field, i, 1)) for i, mean in enumerate(means)]
        if self.memory:
            samples = self.captured.field("samples")
            extra += [(term, rows_of(samples, i, 1)) for i, term in enumerate(terms.values())]
        for name, optimiser in self.optimisers.items():
            optimiser.collect(flatten(gradients[0][name]), extra)
            extra = []
        for optimiser in self.optimisers.values():
            optimiser.prepare(self.captured.number, field)
        for optimiser in self.optimisers.values():
            optimiser.update()

    def terms(self) -> tuple[str, ...]:
        """The names of the objective's terms: they are computed once, and nobody looks at their values."""
        with cuda.use(self.context):
            return tuple(self._shard(0, self.config.train.batch // self.config.shards)[0])

    def _shard(self, first: int, n: int) -> tuple[dict[str, Array], dict[str, Tree]]:
        """Terms and gradients of the n samples from `first` on."""
        config, objective = self.config, self.objective
        networks = {name: Network(network.model, self._weights(name)) for name, network in config.networks.items()}
        number: Any = self.captured.number
        key = Key(config.seed, number, first, config.train.batch).under(objective_name(objective))
        inputs = self.captured.inputs
        data = {name: rows_of(inputs[name], first, n) for name in self.entries}
        memory = unflatten({path: inputs[f"memory/{path}"] for path in flatten(self.memory)})
        terms, g = both(
            objective, objective.loss_and_gradient(cuda, networks, objective.draw(cuda, data, key, memory), key)
        )
        check_terms(objective, terms, n)
        check_gradients(objective, g, networks)
        return terms, g

    def _remembered(self) -> dict[str, np.ndarray]:
        """The memory as entries of a step: floats as float32, integers as int32."""
        return {
            f"memory/{path}": np.asarray(leaf, DTYPES["float" if leaf.dtype.kind == "f" else "int"])
            for path, leaf in flatten(self.memory).items()
        }

    def _weights(self, name: str) -> Tree:
        return unflatten(self.optimisers[name].parameters) if name in self.optimisers else self.frozen[name]

    def _frozen_weights(self, state: State | None) -> dict[str, Tree]:
        """The weights of frozen networks on the device; memory of that size without a state."""
        config = self.config
        if state:
            return {
                name: on_device(Network(config.networks[name].model, tree), config.dtype).p
                for name, tree in frozen_trees(config, state).items()
            }

        def empty(model: Any) -> Tree:
            layout = models.layout(model)
            each = unflatten(models.dtypes(layout, config.dtype))
            return models.tree_map(lambda parameter, dtype: self.context.empty(parameter.shape, dtype), layout, each)

        frozen = {name: network.model for name, network in config.networks.items() if name not in self.optimisers}
        return {name: empty(model) for name, model in frozen.items()}

    def _check(self, record: np.ndarray | None) -> Step | None:
        """What a step measured. TrainingError, which names the step, where it or one before is bad; what was queued after it
        is forgotten, for it wrote nothing."""
        if record is None:
            return None
        number, bad = int(record["number"]), int(record["bad"])
        terms = dict(zip(self.names, record["terms"].tolist(), strict=True))
        norms, rates = (
            {name: float(record[f"scalars {name}"][SCALARS.index(scalar)]) for name in self.optimisers}
            for scalar in ("norm", "rate")
        )
        if bad:
            self.captured.settle()
            check_finite(number, terms, norms)
            raise TrainingError(f"step {number}: nothing is trained any more since step {bad}, which was not finite")
        self.done, self.samples_seen = number, self.samples_seen + self.config.train.batch
        if self.memory:
            samples = dict(zip(self.names, record["samples"][:, : self.config.train.batch], strict=True))
            self.memory = remembered(self.objective, self.memory, samples)
        return Step(number, terms, norms, rates)

    def _optimiser(self, name: str, state: State | None) -> FlatOptimiser:
        s, packing = self.config.train, packing_of(self.config, name)
        rule = self.config.networks[name].rule.resolved(s)
        settings = OptimiserSettings(
            s.steps, rule.learning_rate, s.warmup, s.decay, rule.max_grad_norm, rule.weight_decay, rule.ema_decay,
            *rule.betas,
        )  # fmt: skip
        values = {tree: packing.pack(state.trees[tree][name]) for tree in TREES} if state else None
        extras = [1] * len(self.names) + ([s.batch] * len(self.names) if self.memory else [])
        extras = extras if name == self.objective.trains[0] else []
        dtypes = models.dtypes(models.layout(self.config.networks[name].model), self.config.dtype)
        return FlatOptimiser(
            self.context, packing.places, packing.size, values, dtypes, settings,
            self.captured.field(f"scalars {name}"), self.captured.field("bad"), extras,
        )  # fmt: skip


def packing_of(config: Config, name: str) -> Packing:
    """Where the parameters of a network lie in its flat buffers."""
    return Packing.of(models.layout(config.networks[name].model))


def rows_of(a: Array, first: int, n: int) -> Array:
    """n rows of a dense array from `first` on, a view."""
    count = a.size // max(a.shape[0], 1)
    return Array(a.buffer, (n, *a.shape[1:]), a.dtype, a.offset + first * count)


def joined(parts: list[Array]) -> Array:
    """Arrays (n,), one after another."""
    whole = parts[0]
    for part in parts[1:]:
        whole, _ = cuda.concat(whole, part)
    return whole
