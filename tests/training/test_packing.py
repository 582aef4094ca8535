"""All parameters in one flat buffer: each once, where it belongs."""

import numpy as np

from refdiff import models
from refdiff.models import flatten
from refdiff.training import State
from refdiff.training.packing import Packing


def test_a_packing_holds_each_parameter_once_and_aligned(tiny):
    packing, p = Packing.of(models.layout(tiny.model)), State.first(tiny).p
    flat = packing.pack(p)
    assert flat.size == packing.size
    assert all(offset % 64 == 0 for offset, _ in packing.places.values())
    again = flatten(packing.unpack(flat))
    assert all(np.array_equal(again[name], leaf) for name, leaf in flatten(p).items())
    again["conv_in/weight"][0, 0, 0, 0] = 7.0
    assert (flat == 7.0).sum() == 1
