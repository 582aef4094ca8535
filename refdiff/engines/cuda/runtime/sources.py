"""Where the .cu files are: in an installed package refdiff/_kernels, in a checkout kernels/ beside the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["KERNELS"]

_PACKAGE = Path(__file__).resolve().parents[3]
_found = next((p for p in (_PACKAGE / "_kernels", _PACKAGE.parent / "kernels") if (p / "device.cuh").exists()), None)
if _found is None:
    raise ImportError(f"refdiff's kernels are missing: expected {_PACKAGE / '_kernels'}; install refdiff again")
KERNELS: Path = _found
