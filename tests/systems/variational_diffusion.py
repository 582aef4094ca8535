"""Variational diffusion with each of its options, of small images that have five levels."""

from types import SimpleNamespace

import numpy as np

from refdiff.config import RuleConfig
from refdiff.models import MLPConfig, MonotoneConfig, TableConfig, UNetConfig
from refdiff.systems import VDM
from systems import rows
from systems.runs import configuration

LEVELS = 5
BETAS = (0.9, 0.99)
RULES = {
    "denoiser": RuleConfig(betas=BETAS),
    "ends": RuleConfig(learning_rate=5e-3, betas=BETAS),
    "gamma": RuleConfig(learning_rate=2e-2, betas=BETAS),
}
MLP = MLPConfig((4, 4, 1), 32, 2)
IMAGES = UNetConfig(4, 1, 8, (1,), 1, (), groups=4, fourier=(1, 2))


def on_levels(x):
    return np.clip(np.round((x + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1) / (LEVELS - 1) * 2 - 1


def networks(denoiser, hidden=8):
    """gamma from -3 to 3 at first, where every term of the bound counts."""
    return {"denoiser": denoiser, "ends": TableConfig(1, 2, (-3.0, 6.0)), "gamma": MonotoneConfig(hidden)}


def _system(denoiser, objective, x):
    steps = 120 if denoiser is MLP else 40
    config = configuration(networks(denoiser), objective, RULES, T=100, steps=steps)
    return SimpleNamespace(config=config, data=rows.Rows(x=on_levels(x)))


images = rows.images(4).entries["x"]
ALONE = {
    "vdm": _system(MLP, VDM(bins=LEVELS), images),
    "vdm_images": _system(IMAGES, VDM(bins=LEVELS, low=-6, high=4), images),
    "vdm_steps": _system(MLP, VDM(T=10, bins=LEVELS), images),
    "vdm_images_steps": _system(IMAGES, VDM(T=3, bins=LEVELS), images),
}
