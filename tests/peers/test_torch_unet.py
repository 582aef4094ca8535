"""Our U-Net in PyTorch is our U-Net."""

import numpy as np
import pytest
import torch

from benchmarks.peers.torch_peer import TorchPeer
from benchmarks.peers.torch_unet import UNet
from refdiff.benchmark.cases import network, operations, weights
from refdiff.benchmark.harness import output_error
from refdiff.benchmark.host import HostPeer
from refdiff.benchmark.protocol import sketch

TINY = {"size": 8, "channels": 2, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}
CHANGES = [{}, {"heads": 2, "time": "adm"}, {"resampling": "pooled", "width": 10}]


def same(case, variant):
    ours, theirs = ({k: sketch(y) for k, y in peer.prepare(case).items()}
                    for peer in (HostPeer("reference"), TorchPeer("cpu", variant)))  # fmt: skip
    error, wrong = output_error(theirs, ours)
    assert not wrong
    assert error <= 1e-5, case


@pytest.mark.parametrize("kind", ["forward", "train", "sample"])
@pytest.mark.parametrize("change", CHANGES)
def test_networks(kind, change):
    same({"kind": kind, "model": TINY | change, "batch": 3, "dtype": "float32", "seed": 4}, "channels-last")


@pytest.mark.parametrize("variant", ["eager", "channels-last"])
def test_operations(variant):
    for case in operations(TINY, 2):
        same(case, variant)
    assert np.isfinite(TorchPeer("cpu", variant).time(0)).all()


def test_it_is_one_graph_for_torch_compile():
    config = network(TINY)
    net = UNet(config, weights(config, 0))
    found = torch._dynamo.explain(net)(torch.randn(2, 2, 8, 8), torch.tensor([3, 4]))
    assert (found.graph_count, found.graph_break_count) == (1, 0)
