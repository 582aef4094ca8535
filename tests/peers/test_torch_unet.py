"""Our U-Net in PyTorch is our U-Net."""

import numpy as np
import pytest
import torch

from benchmarks.peers.torch_peer import TorchPeer
from benchmarks.peers.torch_unet import UNet
from refdiff.benchmark.cases import config_of, network, operations, weights
from refdiff.benchmark.harness import output_error
from refdiff.benchmark.host import HostPeer
from refdiff.benchmark.protocol import sketch
from refdiff.engines import reference
from refdiff.random import Key

TINY = {"size": 8, "channels": 2, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}
ADM = {"classes": 5, "conditioning": "scale_shift", "resampling": "residual", "head_channels": 4, "epsilon": 1e-5,
       "time": "adm"}  # fmt: skip
CHANGES = [
    {},
    {"heads": 2, "time": "adm"},
    {"resampling": "pooled", "width": 10},
    ADM,
    ADM | {"null_label": False, "qkv": "interleaved", "rescale": "residual", "resampling": "residual_projected"},
    ADM | {"embedding_silu": "time", "rescale": "skips", "resampling": "plain", "blocks": [1, 2]},
    {"resampling": "centred", "low_res": 4, "multipliers": [0.5, 1], "width": 16, "stem": 0.5, "groups": 2},
]


def same(case, variant):
    ours, theirs = ({k: sketch(y) for k, y in peer.prepare(case).items()}
                    for peer in (HostPeer("reference"), TorchPeer("cpu", variant)))  # fmt: skip
    error, wrong = output_error(theirs, ours)
    assert not wrong
    assert error <= 1e-5, case


@pytest.mark.parametrize("kind", ["forward", "train", "sample"])
@pytest.mark.parametrize("change", CHANGES)
def test_networks(kind, change):
    same({"kind": kind, "model": TINY | change, "batch": 9, "dtype": "float32", "seed": 4}, "channels-last")


def test_the_adm_preset_steps_drop_labels_as_ours_do():
    """Of 64 labels some are left out of the step that is compared; those that are timed draw others."""
    case = {"kind": "train", "model": "digits-adm", "batch": 64, "dtype": "float32", "seed": 4}
    null = config_of(case, "reference").objective.null
    assert null == (("label", 10, 0.1),)
    assert 0 < reference.bernoulli(Key(4, 1, 0, 64).under("Denoising")("null/label"), 64, 0.1).sum() < 64
    same(case, "channels-last")
    peer = TorchPeer("cpu", "eager")
    peer.prepare(case)
    assert np.isfinite(peer.time(1)).all()


@pytest.mark.parametrize("variant", ["eager", "channels-last"])
def test_operations(variant):
    for case in operations(TINY, 2) + operations(TINY | ADM | {"rescale": "residual"}, 2):
        same(case, variant)
    assert np.isfinite(TorchPeer("cpu", variant).time(0)).all()


@pytest.mark.parametrize(("change", "told"), [({}, {}), (ADM, {"label": torch.tensor([0, 4])})])
def test_it_is_one_graph_for_torch_compile(change, told):
    config = network(TINY | change)
    net = UNet(config, weights(config, 0))
    found = torch._dynamo.explain(net)(torch.randn(2, 2, 8, 8), torch.tensor([3, 4]), **told)
    assert (found.graph_count, found.graph_break_count) == (1, 0)
