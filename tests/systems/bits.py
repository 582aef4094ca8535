"""Binomial diffusion: the heartbeat in twenty steps.   [DPM]"""

from refdiff.data import load
from refdiff.models import MLPConfig
from refdiff.systems import Binomial
from systems.runs import configuration

T = 20
data = load("heartbeat")
config = configuration({"denoiser": MLPConfig((1, 20, 1), 32, 2)}, Binomial(T=T), T=T, steps=100)
