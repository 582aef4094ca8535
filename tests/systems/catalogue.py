"""The systems by name."""

from systems import (
    autoencoders,
    bits,
    contrastive,
    hierarchical,
    hybrid,
    importance,
    learned_beta,
    tokens,
    variational_diffusion,
    vector_quantised,
)

# Those that begin from nothing: their configuration and their data.
ALONE = {
    "hybrid": hybrid, "vector_quantised": vector_quantised, "tokens": tokens,
    "contrastive": contrastive, "importance": importance, "hierarchical": hierarchical, "learned_beta": learned_beta,
    "hierarchical_images": hierarchical.images, "bits": bits, **autoencoders.ALONE, **variational_diffusion.ALONE,
}  # fmt: skip
NAMES = (*ALONE, "autoencoder", "latent", "consistency", "base", "upsampling")
