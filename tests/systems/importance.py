"""7  A t that is drawn by how large its loss was of late: what a run remembers, and no gradient changes.
[IDDPM] section 3.3"""

from dataclasses import replace

from refdiff.models import MLPConfig
from refdiff.objectives import Denoising
from systems import rows
from systems.runs import configuration

data = rows.points()
importance = Denoising(weighting="vlb", timesteps="importance")
config = configuration({"denoiser": MLPConfig(2, 32, 2, classes=3)}, importance, T=20, batch=64, steps=150)
uniform = replace(config, objective=Denoising(weighting="vlb"))
