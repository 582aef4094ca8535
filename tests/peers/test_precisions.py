"""The ends of `process` in PyTorch's half precisions, of which NumPy has one: what tests/process asks, by other fixtures."""

import numpy as np
import pytest
import torch
from process.test_ends import test_learned_log_variances_in_every_precision
from process.test_precision import (
    test_dynamic_thresholds_of_many_elements,
    test_every_mixture_of_arrays_is_right_to_its_last_digits_at_both_ends,
    test_losses_of_random_numbers_are_their_exact_sums,
    test_single_steps_of_the_samplers_are_right_at_both_ends,
    test_the_bound_asks_for_more_digits_than_half_precision_has,
    test_the_mean_of_many_squares_neither_overflows_nor_vanishes,
)

__all__ = [
    "test_dynamic_thresholds_of_many_elements",
    "test_every_mixture_of_arrays_is_right_to_its_last_digits_at_both_ends",
    "test_learned_log_variances_in_every_precision",
    "test_losses_of_random_numbers_are_their_exact_sums",
    "test_single_steps_of_the_samplers_are_right_at_both_ends",
    "test_the_bound_asks_for_more_digits_than_half_precision_has",
    "test_the_mean_of_many_squares_neither_overflows_nor_vanishes",
]


@pytest.fixture(params=["torch.float16", "torch.bfloat16", "torch.float32"], scope="module")
def dtype(request):
    return request.param


@pytest.fixture(params=["torch.float16", "torch.bfloat16"])
def half(request):
    return request.param


@pytest.fixture(scope="module")
def numbers():
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 100_000)).to(torch.bfloat16), 2.0**-7
