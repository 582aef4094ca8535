"""A tree of parameters in one flat buffer."""

import numpy as np

from refdiff import models
from refdiff.models import flatten
from refdiff.models.packing import Packing


def test_a_packing_holds_each_parameter_once_and_aligned():
    layout = models.layout(models.UNetConfig(width=8, channels=1, size=8))
    packing, p = Packing.of(layout), models.initialise(layout, 0)
    flat = packing.pack(p)
    assert flat.size == packing.size
    assert all(offset % 64 == 0 for offset, _ in packing.places.values())
    again = flatten(packing.unpack(flat))
    assert all(np.array_equal(again[name], leaf) for name, leaf in flatten(p).items())
    again["conv_in/weight"][0, 0, 0, 0] = 7.0
    assert (flat == 7.0).sum() == 1


def test_a_tree_is_packed_into_a_buffer_that_is_given():
    layout = models.layout(models.MLPConfig(width=8))
    packing, p = Packing.of(layout), models.initialise(layout, 0)
    flat = np.full(packing.size, 9, np.float32)
    assert packing.pack(p, flat) is flat
    assert all(np.array_equal(flatten(packing.unpack(flat))[name], leaf) for name, leaf in flatten(p).items())
    assert (flat == 9).sum() == packing.size - models.count(layout)
