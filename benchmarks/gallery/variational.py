"""The entries of hierarchical variational autoencoders and of variational diffusion."""

from __future__ import annotations

import numpy as np

from benchmarks.gallery.entries import entry
from benchmarks.gallery.hierarchy import LEVELS, bounds_by_levels, hierarchy, plot_levels
from benchmarks.gallery.origins import measured, numbers, shown_by_the_system
from benchmarks.gallery.work import Work
from refdiff.process import linear
from refdiff.storage import save_grid, save_strip
from refdiff.systems import draw, trajectory

__all__: list[str] = []

SHOWN = 8  # samples on their way


@entry("Digits in black and white: a hierarchical variational autoencoder")
def digits_hvae(work: Work) -> None:
    """The bound of held-out digits both ways, a term a level; samples, and what each level decides."""
    run = work.train("digits-hvae")
    model, found = measured(work, run)
    work.note(**numbers(found))
    save_grid(work.picture("a hundred samples, the mean of p(x|z_1) of each, none left out"), draw(model, 100), 10)
    words = "the terms of the bound; held-out digits, and below each what is drawn anew under z_1, z_2 and z_3"
    shown_by_the_system(work, run, model, found[0], words, "levels")


@entry("A mixture on the line: one, two and four levels")
def mixture_hvae(work: Work) -> None:
    """The bound of held-out points in nats with as many steps of training for each, beside the model's own -log p(x) and the
    mixture's, by quadrature; linear encoders that begin as the forward process. One seed of training and of drawing."""
    steps = work.steps(hierarchy(1).train.steps)
    found = bounds_by_levels(steps=steps)
    work.note(minus_log_p_of_the_mixture=found["true"], steps=steps)
    for name in ("bound", "bound_error", "minus_log_p", "gap"):
        work.note(**{name: {f"{levels}": found[f"{levels}"][name] for levels in LEVELS}})
    plot_levels(
        found, work.picture("bound and -log p(x) over the number of levels; the densities beside the mixture's")
    )


@entry("Digits: variational diffusion, its noise schedule learned")
def digits_vdm(work: Work) -> None:
    """The bound of held-out digits in bits per dimension: with the schedule learned; with a straight line between DDPM's
    ends, which stay; and with a straight line between ends that are learned. The same network, as many steps."""
    run = work.train("digits-vdm")
    model, found = measured(work, run)
    work.note(**numbers(found))
    save_grid(
        work.picture("a hundred samples in 100 steps, none left out"), draw(model, 100, progress=work.progress), 10
    )
    states = [x for _, x in trajectory(model, np.arange(SHOWN))]
    chosen = np.round(np.linspace(0, len(states) - 1, 12)).astype(int)
    save_strip(work.picture("from noise to a digit", "way"), np.stack([states[i] for i in chosen]))
    words = (
        "the learned schedule beside a straight line, and the diffusion loss over t with both, its mean and deviation"
    )
    shown_by_the_system(work, run, model, found[0], words, "schedule")
    straight = "networks.gamma.hidden=0"
    for name, changes in (("ddpm_ends", (*DDPM_ENDS, straight)), ("straight", (straight,))):
        _, found = measured(work, work.train("digits-vdm", *changes, called=name.replace("_", " ")))
        work.note(**{f"{name}_{key}": value for key, value in numbers(found).items() if key in BOUND})


def _ddpm_ends() -> tuple[str, ...]:
    """gamma at the first and the last step of DDPM's schedule, as the table has them, which stay."""
    schedule = linear()
    first, last = -np.log(schedule.snr[[1, -1]])
    span = last - first
    w = span + np.log(-np.expm1(-span))  # log(1 + e^w) = span
    return f"networks.ends.first=[{first:.6f},{w:.6f}]", "networks.ends.learning_rate=0"


DDPM_ENDS = _ddpm_ends()
BOUND = (
    "bits_per_dim", "bits_per_dim_error", "diffusion_bits", "prior_bits", "reconstruction_bits", "gamma_0", "gamma_1"
)  # fmt: skip
