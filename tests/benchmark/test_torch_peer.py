"""Our U-Net in PyTorch is our U-Net, where PyTorch is installed."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.peers import torch_operations  # noqa: E402
from benchmarks.peers.torch_peer import TorchPeer  # noqa: E402
from benchmarks.peers.torch_unet import UNet  # noqa: E402
from refdiff.benchmark.cases import network, operations, weights  # noqa: E402
from refdiff.benchmark.harness import difference  # noqa: E402
from refdiff.benchmark.host import HostPeer  # noqa: E402
from refdiff.benchmark.protocol import sketch  # noqa: E402

TINY = {"size": 8, "channels": 2, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}
CHANGES = [{}, {"heads": 2, "time": "adm"}, {"downsampling": "pooled", "width": 10}]


def same(case, variant):
    ours, theirs = ({k: sketch(y) for k, y in peer.prepare(case).items()}
                    for peer in (HostPeer("reference"), TorchPeer("cpu", variant)))  # fmt: skip
    error, wrong = difference(theirs, ours)
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


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_copies_have_tensors_of_their_own(monkeypatch, direction):
    """Of what an operation reads and writes; the time is of one of them."""
    (case,) = (
        c for c in operations(TINY, 2) if c["operation"] == "silu" and c["direction"] == direction and c["count"] == 2
    )
    peer, alone = TorchPeer("cpu", "eager"), TorchPeer("cpu", "eager")
    read, forward = set(), torch_operations.silu
    monkeypatch.setattr(torch_operations, "silu", lambda x: (read.add(x.data_ptr()), forward(x))[1])
    one, several = alone.prepare(case), peer.prepare(case | {"copies": 3})
    assert len(read) == 4
    assert all(np.array_equal(one[name], several[name]) for name in one)
    results = peer.run()
    assert len({(y if direction == "forward" else y[0]).data_ptr() for y in results}) == len(results) == 3
    peer.run = lambda: time.sleep(0.03)
    assert 0.01 <= peer.time(1)[0] < 0.03


def test_it_is_one_graph_for_torch_compile():
    config = network(TINY)
    net = UNet(config, weights(config, 0))
    found = torch._dynamo.explain(net)(torch.randn(2, 2, 8, 8), torch.tensor([3, 4]))
    assert (found.graph_count, found.graph_break_count) == (1, 0)
