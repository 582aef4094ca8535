"""All claims, in the order in which the papers make them; importing this puts them into `refdiff.testing.claim.CLAIMS`."""

# isort: off
# fmt: off
from .. import claim as claim  # first, since it says what to install where something is missing
from . import forward, posterior, bound, objectives, sampling, solvers, guidance, exact, scheduler, steps, runs, misprints

# fmt: on
# isort: on

__all__ = [
    "bound",
    "exact",
    "forward",
    "guidance",
    "misprints",
    "objectives",
    "posterior",
    "runs",
    "sampling",
    "scheduler",
    "solvers",
    "steps",
]
