"""Sentences of the documents with figures of the gallery's runs of systems."""

from benchmarks.gallery.page import shown

PAGE = "docs/systems.md"


def two(value):
    """Two digits behind the point: of a mean with its deviation, or of a number."""
    return f"{value['mean']:.2f} ± {value['deviation']:.2f}" if isinstance(value, dict) else f"{value:.2f}"


def mean(value, digits=3):
    return f"{value['mean'] if isinstance(value, dict) else value:.{digits}f}"


def trained_in(record, name):
    return f"{record['runs'][name]['seconds']:.0f} s"


def said_of_systems(records):
    """(document, sentence)"""
    yield from of_autoencoders(records)
    yield from of_hierarchies(records)
    yield from of_variational_diffusion(records["digits-vdm"])
    yield from of_the_first_diffusion(records)


def of_autoencoders(records):
    record = records["digits-autoencoder"]
    found = record["values"]
    yield (
        PAGE,
        f"`digits-autoencoder` is trained in {trained_in(record, 'digits-autoencoder')} on two cores. Through "
        f"two numbers a pixel "
        f"of the {found['samples']} held-out digits has a squared error of {mean(found['squared_error'])}; through two "
        f"principal components, {mean(found['principal_components_error'])}.",
    )
    record = records["digits-vae"]
    found = record["values"]
    yield (
        PAGE,
        f"`digits-vae` is trained in {trained_in(record, 'digits-vae')}. A held-out binary digit costs at most "
        f"{mean(found['bits_per_dim'])} bits per dimension ({mean(found['bound_nats'], 2)} nats): "
        f"{mean(found['reconstruction_bits'])} of reconstruction and {mean(found['divergence_bits'])} of divergence; "
        f"{mean(found['importance_weighted_bits'])} by the importance-weighted bound of {found['draws']} draws. With two "
        f"latent numbers, of which there is a map, {mean(found['two_bits_per_dim'])}.",
    )


def of_hierarchies(records):
    record = records["digits-hvae"]
    found = record["values"]
    yield (
        PAGE,
        f"`digits-hvae` is trained in {trained_in(record, 'digits-hvae')}. A held-out binary digit costs at most "
        f"{mean(found['bits_per_dim'])} bits per dimension as the mean of the joint ratio and "
        f"{mean(found['sum_of_terms_bits'])} as the sum of the terms: {mean(found['reconstruction_bits'])} of "
        f"reconstruction, "
        f"{mean(found['consistency1_bits'])} and {mean(found['consistency2_bits'])} of consistency, "
        f"{mean(found['prior_bits'])} of the prior.",
    )
    found = records["mixture-hvae"]["values"]
    for levels in ("1", "2", "4"):
        cells = [f"{found[name][levels]:.3f}" for name in ("bound", "minus_log_p", "gap")]
        yield PAGE, f"| {levels} | {' | '.join(cells)} |"
    yield PAGE, f"the mixture's own -log p(x) is {found['minus_log_p_of_the_mixture']:.3f} nats"


def of_variational_diffusion(record):
    found = record["values"]
    yield (
        PAGE,
        f"`digits-vdm` is trained in {trained_in(record, 'digits-vdm')}. A held-out digit costs at most "
        f"{shown(found['bits_per_dim'])} bits per dimension; with a straight line between DDPM's ends, which stay, the same "
        f"network and as many steps, {shown(found['ddpm_ends_bits_per_dim'])}; with a straight line between learned ends "
        f"{shown(found['straight_bits_per_dim'])}.",
    )
    yield (
        PAGE,
        f"Of the learned schedule, gamma from {mean(found['gamma_0'], 2)} to {mean(found['gamma_1'], 2)}, the "
        f"diffusion loss is "
        f"{shown(found['diffusion_bits'])} bits, and with a straight line between the same ends "
        f"{shown(found['line_diffusion_bits'])}; but a single estimate of it varies "
        f"{mean(found['variance_factor'], 2)} times "
        "less.",
    )
    yield (
        "README.md",
        f"a held-out digit costs {mean(found['bits_per_dim'], 2)} bits per dimension, and "
        f"{mean(found['ddpm_ends_bits_per_dim'], 2)} "
        f"where the schedule is DDPM's; its inside changes no bound, and makes an estimate vary "
        f"{mean(found['variance_factor'], 1)} times less",
    )


def of_the_first_diffusion(records):
    record = records["swissroll-2015"]
    found = record["values"]
    yield (
        PAGE,
        f"`swissroll-2015` is trained in {trained_in(record, 'swissroll-2015')}. A held-out point costs at most "
        f"{two(found['bound_bits'])} bits with learned variances, and {two(found['fixed_bound_bits'])} with "
        f"variances that stay, "
        f"the same network and as many steps; a unit Gaussian needs {two(found['gaussian_bits'])}.",
    )
    record = records["heartbeat"]
    found = record["values"]
    yield (
        PAGE,
        f"`heartbeat` is trained in {trained_in(record, 'heartbeat')}. A sequence costs at most "
        f"{two(found['bound_bits'])} bits, "
        f"where its entropy is {mean(found['entropy_bits'], 2)}, and "
        f"{100 * found['samples_among_data']['mean']:.1f} % of the samples are one of the five.",
    )
    record = records["digits-binary"]
    found = record["values"]
    yield (
        PAGE,
        f"`digits-binary` is trained in {trained_in(record, 'digits-binary')}. A held-out digit costs at most "
        f"{two(found['bound_bits'])} bits, where pixels that know nothing of each other need "
        f"{two(found['independent_bits'])}.",
    )
