"""7  The first diffusion model: beta_2 .. beta_T are learned with the reverse process.   [DPM]"""

import numpy as np

from refdiff.config import RuleConfig
from refdiff.models import MLPConfig, TableConfig
from refdiff.systems import Nonequilibrium, first_logits
from systems import rows
from systems.runs import configuration

T = 20
FIRST = 1 / (T - np.arange(2, T + 1) + 2.0)
data = rows.points(labels=False)
config = configuration(
    {"denoiser": MLPConfig(2, 32, 2, outputs=2), "beta": TableConfig(T - 1, 1, first_logits(T))},
    Nonequilibrium(T=T, first=1e-2),
    {"beta": RuleConfig(learning_rate=5e-2, weight_decay=0.0)},
    T=T,
    steps=300,
    max_grad_norm=0.0,
)
