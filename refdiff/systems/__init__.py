"""Papers, one file each: what is learned, how samples are drawn, how good the model is, where that is not `Denoising`."""

from .autoencoder import Autoencoder as Autoencoder
from .binomial import Binomial as Binomial
from .conditions import check_noise as check_noise
from .hierarchical_vae import HierarchicalVAE as HierarchicalVAE
from .learned_beta import first_logits as first_logits
from .likelihoods import LIKELIHOODS as LIKELIHOODS
from .nonequilibrium import Nonequilibrium as Nonequilibrium
from .system import *
from .vae import VAE as VAE
from .vdm import VDM as VDM
