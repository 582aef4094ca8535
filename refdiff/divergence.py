"""Numbers that grow beyond bounds say so once: by one error where they end in NaN or infinity, else by one warning, and not
by every operation of NumPy on the way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors import DoubtWarning, NotFiniteError

__all__ = ["Overflows", "require_finite"]


class Overflows:
    """Floating-point errors that NumPy would warn of, held back while it is not known what became of them.

    advice: what to do about them. After an exception nothing is said: they are what it speaks of. Else `tell` gives one
    DoubtWarning, so that no fault stays hidden behind a result that happens to be finite.
    """

    def __init__(self, advice: str) -> None:
        self.advice, self.first, self.told = advice, "", False

    @contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Inside, they are noted, also on other threads and in worker processes of the cpu engine. What NumPy is told to
        raise or to ignore stays so."""
        kinds: list[str] = []
        modes: dict[str, Any] = {kind: "call" for kind, mode in np.geterr().items() if mode == "warn"}
        with np.errstate(**modes, call=lambda kind, flag: kinds.append(kind)):
            yield
        self.tell()  # those of the time before: they had no consequence in this one
        if kinds:
            self.first = f"{what}: expected numbers that float32 can hold, got {', '.join(dict.fromkeys(kinds))}"

    def tell(self) -> None:
        """Those noted until now had no consequence: once, a DoubtWarning."""
        if self.first and not self.told:
            self.told = True
            warnings.warn(f"{self.first} on the way to a finite result; {self.advice}", DoubtWarning, stacklevel=3)
        self.first = ""


def require_finite(name: str, x: np.ndarray, advice: str = "have the weights diverged?", what: str = "numbers") -> None:
    """NotFiniteError, which says of what it is, for an array that holds NaN or infinity."""
    if bad := int(np.count_nonzero(~np.isfinite(x))):
        raise NotFiniteError(f"{name}: expected finite {what}, got {bad} of {x.size} that are not; {advice}")
