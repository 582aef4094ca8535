"""8  A cascade 2 -> 4 -> 8: a run a stage, each told the image of the stage before, noised to a level that it is told too.
[CDM] [Imagen]"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refdiff.objectives import Denoising, register_objective
from refdiff.objectives.tables import noise_table
from refdiff.process import q_sample
from refdiff.random import Key, normal
from refdiff.sampling import sample
from systems import rows
from systems.networks import Upsampler
from systems.runs import configuration

SIZES = (2, 4, 8)


@dataclass(frozen=True)
class Upsampling(Denoising):
    """Denoising with a low_res noised to a level of the same schedule, 1 .. levels, drawn anew for each sample."""

    levels: int = 20

    def reads(self, networks):
        return {entry: given for entry, given in super().reads(networks).items() if entry != "level"}

    def draw(self, engine, data, key, memory):
        batch, low = super().draw(engine, data, key, memory), data["low_res"]
        n = low.shape[0]
        level = engine.integers(key("level"), n, 1, self.levels)
        a, b, *_ = engine.columns(noise_table(self.schedule, "eps", "simple"), level)
        noise = engine.normal(key("low_res"), n, tuple(low.shape[1:]))
        return batch | {"low_res": engine.affine(a, low, b, noise), "level": level}


register_objective("upsampling", Upsampling)
DATA = {size: rows.images(size) for size in SIZES}


def config(size, **changes):
    """Of the stage that makes images of this size."""
    low = size // 2 if size > SIZES[0] else 0
    objective = Upsampling(prediction="v") if low else Denoising(prediction="v")
    return configuration({"denoiser": Upsampler(size, 8, 3, low)}, objective, **{"batch": 16, "steps": 150, **changes})


def cascade(stages, n, seed=0, label=None, level=3):
    """n images of each stage, the first one's first. stages: of `Trained`, each with the name of its stage.

    ValueError, before anything is computed, where a stage is told images of another size than the one before it makes, and
    where two have one name, since they would begin with the same noise.
    """
    for before, after in pairwise(stages):
        given, made = after.networks["denoiser"].config.low, before.shape[0]
        if given != made:
            raise ValueError(
                f"stage {after.stage}: expected to be told images of {made} x {made}, got {given} x {given}"
            )
    if len({stage.stage for stage in stages}) < len(stages):
        raise ValueError(f"stages: expected a name each, got {', '.join(stage.stage for stage in stages)}")
    images, given = [], {} if label is None else {"label": label}
    for stage in stages:
        conditions = dict(given)
        if images:
            low = images[-1]
            noise = normal(Key(seed).under(stage.path)("low_res"), np.arange(n), low.shape[1:])
            noised = q_sample(stage.objective.schedule.build(), low, np.full(n, level), noise)
            conditions |= {"low_res": noised, "level": level}
        images.append(sample(stage, n, seed, conditions, progress=False))
    return images
