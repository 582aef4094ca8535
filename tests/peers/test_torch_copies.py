"""PyTorch's operations are timed as ours are."""

import time

import numpy as np
import pytest

from benchmarks.peers import torch_operations
from benchmarks.peers.torch_peer import TorchPeer
from refdiff.benchmark.cases import operations

TINY = {"size": 8, "channels": 2, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "groups": 4}


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
