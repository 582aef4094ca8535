"""1  Labels and label dropout, a learned variance by the hybrid loss, a weighted error: all of it the library's own.
[IDDPM] [CFG] [MinSNR]"""

from refdiff.models import MLPConfig
from refdiff.objectives import Denoising
from systems.rows import points
from systems.runs import configuration

data = points()
config = configuration(
    {"denoiser": MLPConfig(2, 32, 2, classes=3, outputs=2)},
    Denoising(weighting="min_snr", variance="learned", bins=0),
    steps=200,
)
