"""Papers, one file each: what is learned, how samples are drawn, how good the model is, where that is not `Denoising`."""

from .autoencoder import Autoencoder as Autoencoder
from .hierarchical_vae import HierarchicalVAE as HierarchicalVAE
from .system import *
from .vae import VAE as VAE
from .vdm import VDM as VDM
