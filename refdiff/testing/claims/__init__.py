"""All claims, in the order in which the papers make them: `refdiff.testing.claim.CLAIMS` holds them once this is imported."""

from . import forward, posterior, bound, sampling, exact, scheduler, runs, misprints  # noqa: I001 - the order of the page

__all__ = ["bound", "exact", "forward", "misprints", "posterior", "runs", "sampling", "scheduler"]
