"""The heartbeat and the digits in black and white: bits, as -1 and 1."""

import numpy as np
import pytest

from refdiff.data import heartbeat, load


def test_heartbeat_has_a_pulse_every_fifth_bit_and_five_phases_equally():
    data = load("heartbeat")
    assert data.shape == (1, 20, 1)
    assert data.labels is None
    for part, count in ((data.x, 1000), (data.held_out, 500)):
        assert part.dtype == np.float32
        assert set(np.unique(part)) == {-1.0, 1.0}
        sequences, counts = np.unique(part.reshape(count, 20), axis=0, return_counts=True)
        assert (counts == count // 5).all()
        p = counts / count
        assert -(p * np.log2(p)).sum() == pytest.approx(np.log2(5), abs=1e-15)
        assert np.array_equal(sequences[:, 5:], sequences[:, :-5])  # of period 5
        assert (sequences == 1).sum(axis=1).tolist() == [4] * 5


def test_a_sequence_depends_on_its_number_alone():
    assert np.array_equal(heartbeat(7, start=3), heartbeat(10)[3:])
    assert heartbeat(1)[0, 0, :, 0].tolist() == [1, -1, -1, -1, -1] * 4


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_no_sequences(n):
    with pytest.raises(ValueError, match="n: expected a positive integer"):
        heartbeat(n)


def test_binary_digits_are_the_digits_at_half_of_white():
    grey, data = load("digits"), load("binary-digits")
    for bits, values in ((data.x, grey.x), (data.held_out, grey.held_out)):
        assert bits.dtype == np.float32
        assert np.array_equal(bits == 1, (values + 1) * 8 >= 8)
        assert set(np.unique(bits)) == {-1.0, 1.0}
    assert np.array_equal(data.labels, grey.labels)
    assert np.array_equal(data.held_out_labels, grey.held_out_labels)
    assert data.names == grey.names
