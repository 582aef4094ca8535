"""The U-Net of improved DDPM and ADM, and ADM's classifier, beside PyTorch: two hands, one network.

`adm` was written from the papers, and where diffusers has the blocks, it is held against diffusers as well: outputs within
1e-5 in norm in float32, gradients of every parameter and of x within 1e-4, of the reference and of the cpu engine.
"""

import dataclasses
import warnings
from functools import cache
from math import prod

import numpy as np
import pytest
import torch
from peers import copies
from peers.adm import Classifier, UNet

from refdiff import models
from refdiff.engines import cpu, reference
from refdiff.models import ClassifierConfig, Network, UNetConfig
from refdiff.models.blocks import CONDITIONINGS, EMBEDDING_SILUS, POOLINGS, QKVS, RESAMPLINGS, TIMES
from refdiff.models.unet import RESCALES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import UNet2DModel

ENGINES = {"reference": reference, "cpu": cpu}
N = 3
IDDPM = {"size": 16, "channels": 3, "width": 16, "multipliers": (1, 2), "blocks": 2, "attention": (8,), "heads": 4,
         "groups": 8, "epsilon": 1e-5, "time": "adm", "conditioning": "scale_shift", "qkv": "interleaved",
         "resampling": "centred", "outputs": 2}  # fmt: skip
ADM = IDDPM | {"heads": 1, "head_channels": 8, "resampling": "residual", "classes": 10, "null_label": False}
UNETS = {
    "DDPM": {"size": 16, "width": 16, "multipliers": (1, 2), "blocks": 2, "attention": (8,), "groups": 8},
    "improved DDPM": IDDPM,
    "improved DDPM, added": IDDPM | {"conditioning": "add"},
    "ADM 64": ADM | {"qkv": "split", "blocks": 3, "multipliers": (1, 2, 3), "attention": (8, 4)},
    "ADM 128": ADM | {"head_channels": 0, "heads": 4, "multipliers": (1, 1, 2)},
    "ADM 256": ADM | {"attention": (16, 8)},
    "ADM 256 unconditional": ADM | {"classes": 0},
    "ADM 512": ADM | {"width": 32, "multipliers": (0.5, 1, 1), "stem": 0.5, "attention": (8, 4)},
    "ADM upsampler": ADM | {"low_res": 4, "heads": 4, "head_channels": 0},
    "ADM upsampler, by size": ADM | {"size": (16, 24), "low_res": (4, 12), "classes": 0},
    "ADM with no label": ADM | {"null_label": True, "embedding_silu": "time"},
    "ADM, not square": ADM | {"size": (8, 16), "attention": (4,), "multipliers": (1, 1.5)},
    "NCSN++": IDDPM | {"conditioning": "add", "resampling": "residual_projected", "rescale": "residual",
                       "qkv": "split", "heads": 1, "outputs": 1, "time": "ddpm", "epsilon": 1e-6},
    "Imagen": ADM | {"rescale": "skips", "blocks": (1, 2), "qkv": "split"},
    "mean, then a convolution": IDDPM | {"resampling": "pooled", "blocks": (2, 1), "qkv": "split"},
    "mean and nearest": ADM | {"channels": 1, "resampling": "plain", "rescale": "residual", "conditioning": "add"},
    "VDM": {"size": 8, "width": 16, "multipliers": (1,), "blocks": 2, "attention": (), "groups": 8, "fourier": (0, 2)},
    "VDM, a small image beside": ADM | {"low_res": 4, "fourier": (1,)},
    "classes, no attention but in the middle": ADM | {"attention": (), "width": 24, "multipliers": (1, 2), "groups": 6},
}  # fmt: skip
CLASSIFIERS = {
    pooling: {"size": 16, "channels": 3, "width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,),
              "head_channels": 8, "qkv": "interleaved", "groups": 8, "epsilon": 1e-5, "time": "adm", "classes": 7,
              "conditioning": "scale_shift", "resampling": "residual", "pooling": pooling}
    for pooling in ("attention", "adaptive", "spatial", "spatial_v2")
}  # fmt: skip
CLASSIFIERS["classifier 512"] = CLASSIFIERS["attention"] | {
    "width": 32, "multipliers": (0.5, 1, 1), "stem": 0.5, "attention": (16, 8, 4), "blocks": 2
}  # fmt: skip
CLASSIFIERS["not square"] = CLASSIFIERS["attention"] | {
    "size": (8, 16),
    "attention": (4,),
    "head_channels": 0,
    "heads": 4,
}
EVERY = UNETS | CLASSIFIERS


def config_of(name):
    kind = UNetConfig if name in UNETS else ClassifierConfig
    return kind(**EVERY[name])


def drawn(layout, seed):
    """Parameters none of which is zero, such that activations stay of the order of one."""
    rng = np.random.default_rng(seed)

    def values(spec):
        noise = rng.standard_normal(spec.shape)
        weight = len(spec.shape) > 1
        return (noise / prod(spec.shape[:-1]) ** 0.5 if weight else spec.first + 0.3 * noise).astype(np.float32)

    return models.tree_map(values, layout)


@cache
def case(name):
    """Configuration, parameters, batch and dy."""
    config = config_of(name)
    rng = np.random.default_rng(5)
    p, batch = drawn(models.layout(config), 3), {}
    for entry, (shape, kind) in models.inputs(config).items():
        whole = (N, *shape)
        batch[entry] = rng.standard_normal(whole).astype(np.float32) if kind == "float" else rng.integers(0, 10, whole)
    batch["t"] = np.array([1, 40, 999])
    shape = (N, config.classes) if hasattr(config, "pooling") else (N, *config.sides, config.channels * config.outputs)
    return config, p, batch, rng.standard_normal(shape).astype(np.float32)


def image(a):
    """NHWC, or rows, for PyTorch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1)) if a.ndim == 4 else a)


def ours(a):
    a = a.detach().numpy()
    return np.moveaxis(a, 1, -1) if a.ndim == 4 else a


@cache
def judged(name):
    """What PyTorch says: y, dx, and the gradient of each parameter by its name there; and the network."""
    config, p, batch, dy = case(name)
    net = (UNet if name in UNETS else Classifier)(config)
    net.load_state_dict({k: torch.from_numpy(a) for k, a in copies.to_adm(net, p).items()})
    entries = {k: image(a) for k, a in batch.items()}
    x = entries["x"].requires_grad_()
    y = net(**entries)
    y.backward(image(dy))
    return ours(y), ours(x.grad), {k: a.grad.numpy() for k, a in net.named_parameters()}, net


def error(actual, expected):
    return np.linalg.norm((actual - expected).astype(np.float64)) / np.linalg.norm(expected.astype(np.float64))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EVERY)
def test_outputs_and_gradients(name, engine):
    config, p, batch, dy = case(name)
    expected, expected_dx, gradients, net = judged(name)
    y, saved = models.forward(ENGINES[engine], Network(config, p), batch)
    dinputs, g = models.backward(ENGINES[engine], Network(config, p), dy, saved, wrt=("x",))
    assert y.dtype == np.float32
    assert error(y, expected) <= 1e-5
    assert error(dinputs["x"], expected_dx) <= 1e-4
    actual = copies.to_adm(net, g)
    assert actual.keys() == gradients.keys()
    assert models.count(models.layout(config)) == sum(a.numel() for a in net.parameters())
    for k, a in gradients.items():
        assert np.linalg.norm(a) > 0, k
        assert error(actual[k], a) <= 1e-4, k


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_gradient_of_log_p_of_the_label(name, engine):
    """d log p(y | x_t) / dx_t, with which a classifier guides: minus the cross entropy's, through our backward."""
    engine, (config, p, batch, _) = ENGINES[engine], case(name)
    label = np.array([2, 0, 6])
    logits, saved = models.forward(engine, Network(config, p), batch)
    loss, of_loss = engine.cross_entropy(logits, label)
    dlogits = engine.cross_entropy_backward(-1.0, of_loss)
    dinputs, _ = models.backward(engine, Network(config, p), dlogits, saved, wrt=("x",))
    x, net = image(batch["x"]).requires_grad_(), judged(name)[3]
    log_p = net(x, torch.from_numpy(batch["t"])).log_softmax(-1)[range(N), label]
    (dx,) = torch.autograd.grad(log_p.sum(), x)
    assert error(-loss, log_p.detach().numpy()) <= 1e-5
    assert error(dinputs["x"], ours(dx)) <= 1e-4


# ---- diffusers, where it has the blocks

SMALL = {"size": 16, "channels": 3, "width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "groups": 8}
PUBLIC = {
    "DDPM": (SMALL, {"norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0}),
    "ADM": (
        SMALL | {"head_channels": 16, "epsilon": 1e-5, "time": "adm", "conditioning": "scale_shift", "outputs": 2,
                 "resampling": "residual", "classes": 10, "null_label": False},
        {"norm_eps": 1e-5, "freq_shift": 0, "flip_sin_to_cos": True, "resnet_time_scale_shift": "scale_shift",
         "attention_head_dim": 16, "num_class_embeds": 10, "attn_norm_num_groups": 8},
    ),
    "improved DDPM": (
        SMALL | {"heads": 1, "epsilon": 1e-5, "time": "adm", "resampling": "centred", "blocks": 2},
        {"norm_eps": 1e-5, "freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1},
    ),
    "residual rescaling": (
        SMALL | {"epsilon": 1e-6, "resampling": "strided", "rescale": "residual"},
        {"norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0},
    ),
}  # fmt: skip
PUBLIC["ADM, q k v by head"] = PUBLIC["ADM"][0] | {"qkv": "interleaved"}, PUBLIC["ADM"][1]


def public(config, options):
    """diffusers' network of these levels; what it calls rescaling is set in each of its blocks."""
    resnet = config.resampling == "residual"
    down = ["ResnetDownsampleBlock2D" if resnet else "DownBlock2D", "AttnDownBlock2D"]
    up = ["AttnUpBlock2D", "ResnetUpsampleBlock2D" if resnet else "UpBlock2D"]
    how = {"downsample_type": "resnet", "upsample_type": "resnet"} if resnet else {}
    net = UNet2DModel(
        sample_size=config.size, in_channels=3, out_channels=3 * config.outputs, block_out_channels=config.widths,
        layers_per_block=config.blocks, down_block_types=down, up_block_types=up, norm_num_groups=config.groups,
        **{"attention_head_dim": None} | how | options,
    )  # fmt: skip
    if config.rescale == "residual":
        for module in net.modules():
            for attribute in ("output_scale_factor", "rescale_output_factor"):
                if hasattr(module, attribute):
                    setattr(module, attribute, 2**0.5)
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PUBLIC)
def test_diffusers_has_this_network(name, engine):
    fields, options = PUBLIC[name]
    config = UNetConfig(**fields)
    p, rng = drawn(models.layout(config), 4), np.random.default_rng(6)
    net, stand_in = public(config, options), UNet(config)
    state = copies.to_diffusers(config, copies.to_adm(stand_in, p))
    net.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in state.items()})
    x, t, label = (
        rng.standard_normal((N, *config.shape)).astype(np.float32),
        np.array([3, 700, 1000]),
        np.array([1, 7, 0]),
    )
    labels = {"class_labels": torch.from_numpy(label)} if config.classes else {}
    theirs = image(x).requires_grad_()
    expected = net(theirs, torch.from_numpy(t), **labels).sample
    dy = rng.standard_normal(tuple(expected.shape)).astype(np.float32)
    expected.backward(torch.from_numpy(dy))

    batch = {"x": x, "t": t, "label": label}
    y, saved = models.forward(ENGINES[engine], Network(config, p), batch)
    dy = np.ascontiguousarray(np.moveaxis(dy, 1, -1))
    dinputs, g = models.backward(ENGINES[engine], Network(config, p), dy, saved, wrt=("x",))
    assert error(y, ours(expected)) <= 1e-5
    assert error(dinputs["x"], ours(theirs.grad)) <= 1e-4
    gradients = copies.to_diffusers(config, copies.to_adm(stand_in, g))
    for k, a in net.named_parameters():
        if not k.endswith("to_k.bias"):  # a number that all scores share: no gradient but rounding
            assert error(gradients[k], a.grad.numpy()) <= 1e-4, k


def test_every_option_is_among_these():
    configs = [config_of(name) for name in EVERY]
    known = {"conditioning": CONDITIONINGS, "resampling": RESAMPLINGS, "qkv": QKVS, "time": TIMES, "rescale": RESCALES,
             "embedding_silu": EMBEDDING_SILUS, "pooling": POOLINGS}  # fmt: skip
    for field, values in known.items():
        assert {getattr(config, field) for config in configs if hasattr(config, field)} == set(values), field
    unets = [config for config in configs if isinstance(config, UNetConfig)]
    for field in dataclasses.fields(UNetConfig):  # and every number is another one somewhere
        if field.name not in (*known, "dropout"):
            assert len({str(getattr(config, field.name)) for config in unets}) > 1, field.name
