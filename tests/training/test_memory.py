"""What a step needs in memory, before it runs: against what a process grows by, and against the arena of a device."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers import ROOT

from refdiff import models
from refdiff.config import PRESETS, Config
from refdiff.engines import cuda
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.training import State
from refdiff.training.memory import StepMemory, described, step_memory
from refdiff.training.trainers.cuda import CUDATrainer

TINY = ["model.width=8", "train.batch=4", "engine=cpu"]


def of(name, *changes):
    return Config.resolve(name, changes=changes)


def test_the_parts_are_those_of_the_trainer(use_threads):
    use_threads(1)
    config = of("digits", "engine=cpu")
    need, size = step_memory(config), 4 * models.count(models.layout(config.model))
    assert need.weights == pytest.approx(size, rel=0.01)  # beside the gaps between arrays
    assert need[:4] == (need.weights, need.weights, 2 * need.weights, need.weights)
    assert need.activations > size
    assert need.total == sum(need[:5])
    assert need.engine == "cpu"


def test_each_process_has_a_gradient_of_its_own(two_processes):
    config = of("digits", "engine=cpu")
    need = step_memory(config)
    assert need.gradient == 2 * need.weights


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc what a process holds")
def test_a_process_grows_by_so_much(use_threads):
    """All that a run of digits takes once its step is captured, less what a run of four samples took that came before, which
    loaded the program's parts."""
    script = textwrap.dedent("""
        import gc, sys
        import numpy as np
        from refdiff.config import Config
        from refdiff.engines.cpu.runtime.blocks import trim_heap
        from refdiff.training import State
        from refdiff.training.trainers import trainer

        def grown(*changes):
            config = Config.resolve("digits", changes=["engine=cpu", *changes])
            worker = trainer(config, State.first(config))
            for _ in range(4):
                worker.step({"x": np.zeros((config.train.batch, *config.model.shape), np.float32)})
            trim_heap()
            return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) << 10

        before = grown("model.width=8", "train.batch=4")
        gc.collect()
        print(grown("train.batch=256") - before)
    """)
    environment = os.environ | {"REFDIFF_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    use_threads(1)
    need = step_memory(of("digits", "engine=cpu", "train.batch=256"))
    assert need.total > 100 << 20
    assert need.total == pytest.approx(int(found.stdout), rel=0.1)


def test_the_cuda_engine_is_asked_for_its_arena():
    config = dataclasses.replace(of("digits", "train.batch=8"), engine="cuda")
    need, device = step_memory(config), DryRunDevice()
    trainer = CUDATrainer(config, State.first(config), device, Arena(device, 1 << 40))
    trainer.launch()
    assert need.engine == "cuda"
    assert need.total == pytest.approx(trainer.arena.extent, rel=0.01)
    assert need.weights == 4 * trainer.optimisers["denoiser"].state.p.size
    assert need.moments == 2 * need.weights
    half = step_memory(dataclasses.replace(config, dtype="bfloat16"))
    assert half.weights == 1.5 * need.weights
    assert half.activations < need.activations


@pytest.mark.parametrize(
    ("engine", "limit", "value"),
    [
        ("cpu", "refdiff.training.memory.ENOUGH", 6 << 20),
        ("cuda", "refdiff.engines.cuda.runtime.context.MAX_ELEMENTS", 1 << 17),
    ],
)
def test_many_samples_are_told_from_few(use_threads, monkeypatch, engine, limit, value):
    use_threads(1)
    config = dataclasses.replace(of("digits", "train.batch=256", "model.width=8"), engine=engine)
    whole = step_memory(config)
    monkeypatch.setattr(limit, value)
    told = step_memory(config)
    assert told != whole
    assert told.activations == pytest.approx(whole.activations, rel=0.1)


def test_a_conditional_run_and_a_classifier(use_threads):
    use_threads(1)
    for name in ("digits-adm", "digits-classes"):
        assert step_memory(of(name, *TINY, "model.head_channels=8")).activations > 0
    config = PRESETS["adm-classifier64"]
    small = dataclasses.replace(
        config.networks["classifier"].model, size=16, width=32, multipliers=(1, 2), attention=(8,), head_channels=16
    )
    network = dataclasses.replace(config.networks["classifier"], model=small)
    train = dataclasses.replace(config.train, batch=4)
    config = dataclasses.replace(config, networks={"classifier": network}, train=train, engine="cpu")
    need = step_memory(config)
    assert need.weights == pytest.approx(4 * models.count(models.layout(small)), rel=0.01)
    assert need.activations > 20 * 4 * np.prod((4, *small.shape))


def test_the_reference_engine_has_the_figure_of_cpu(use_threads):
    use_threads(1)
    config = of("digits", *TINY)
    assert step_memory(dataclasses.replace(config, engine="reference")).engine == "cpu"


def test_in_words():
    need = StepMemory(1 << 30, 1 << 29, 1 << 30, 1 << 30, 1 << 30, "cpu")
    assert need.total == 4.5 * (1 << 30)
    found = described(of("digits", *TINY))
    assert (found["batch"], found["engine"]) == (4, "cpu")
    total = found["total"] / (1 << 20)
    assert found["text"].startswith(f"{total:.2f} MiB on engine cpu: weights ")
    assert [word in found["text"] for word in ("gradient ", "moments ", "average ", "activations ")] == [True] * 4


def test_every_preset_is_told_in_seconds():
    """adm512 takes hundreds of GiB, and the dry run none of them."""
    need = step_memory(dataclasses.replace(PRESETS["adm512"], engine="cuda"))
    assert need.weights == pytest.approx(4 * 558_997_638, rel=0.01)
    assert need.total > 1 << 40


def test_cuda_context_is_left_as_it_was():
    device = DryRunDevice()
    with cuda.use(cuda.Context(device, Arena(device, 1 << 20))) as context:
        step_memory(dataclasses.replace(of("digits", "train.batch=2"), engine="cuda"))
        assert cuda.current() is context
