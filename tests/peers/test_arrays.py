"""`refdiff.process` on arrays of PyTorch and of JAX: what tests/process asks of any library, by another `library`."""

from process.test_arrays import test_arrays_of_any_library_give_what_numpy_gives as test_process
from process.test_guidance import test_arrays_of_another_library_keep_library_dtype_and_values as test_guidance
from process.test_learned_variance import test_arrays_of_any_library_give_what_numpy_gives as test_the_bound
from process.test_objectives import test_the_weighted_loss_takes_arrays_of_any_library as test_the_weighted_loss
from process.test_ode_likelihood import test_arrays_of_another_library_keep_library_and_dtype as test_the_flow
from process.test_samplers import test_solvers_keep_library_and_dtype as test_solvers
from process.test_shapes import test_arrays_of_other_libraries_are_held_to_it_too as test_shapes
from process.test_variational_bound import (
    test_arrays_of_any_library_give_what_numpy_gives as test_the_terms_of_the_bound,
)

__all__ = [
    "test_guidance",
    "test_process",
    "test_shapes",
    "test_solvers",
    "test_the_bound",
    "test_the_flow",
    "test_the_terms_of_the_bound",
    "test_the_weighted_loss",
]
