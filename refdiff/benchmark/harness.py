"""One case through all peers: outputs compared, then timed in turns. A peer that fails is recorded, the others go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..testing.measures import relative_error
from .process import PeerError, PeerProcess
from .statistics import paired, summary

__all__ = ["Budget", "measure", "output_error"]

FEW = 3  # rounds that are worth going a little over a part's budget for
SETTLE = 0.02  # seconds between two peers' turns: worker threads spin a while after their work
WARM = 0.03  # seconds of work before what counts: after a rest a core takes half of that to come back to its speed
AHEAD = 100  # runs that this may take, most
PATIENCE = 20.0  # seconds that one answer may take at least, while the outermost budget lasts


class Budget:
    """Seconds that may be used from now on. outer: the budget this is a part of, which is never exceeded."""

    def __init__(self, seconds: float, outer: Budget | None = None) -> None:
        self.seconds, self.outer, self._start = seconds, outer, time.monotonic()

    @property
    def used(self) -> float:
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        return max(0.0, self.seconds - self.used)

    def part(self, share: float) -> Budget:
        """A budget of its own: this share of what is left."""
        return Budget(self.left * min(share, 1.0), self.outer or self)

    @property
    def patience(self) -> float:
        """How long to wait for one answer: a part may take a little more than its share, the whole may not."""
        return min(max(self.left, PATIENCE), self.outer.left) if self.outer else self.left


def measure(
    case: Mapping[str, Any],
    peers: Mapping[str, PeerProcess],
    *,
    subject: str,
    tolerance: float,
    budget: Budget,
    rounds: int = 15,
    repeats: int = 1,
) -> dict[str, Any]:
    """The record of one case: the case itself, and

    peers: name -> seconds (median), quartiles, n, difference (from the judge), wrong, error;
    ratios: name -> the subject's time over that peer's, paired, below 1 where the subject is faster.

    The first peer whose outputs are finite is the judge of them. Who differs from it by more than `tolerance` in norm, or is
    not finite, is timed all the same, and `wrong` says what is; outputs of other names or sizes are another computation, and
    an error. A peer that fails keeps what was measured of it before, beside its error. rounds: at most, fewer where the
    budget ends; repeats: runs of a peer in a row.
    """
    record: dict[str, Any] = {"case": dict(case), "subject": subject, "peers": {}, "ratios": {}}
    ready, judged = [], None
    for name, peer in peers.items():
        entry: dict[str, Any] = {}
        record["peers"][name] = entry
        try:
            outputs = peer.prepare(case, budget.patience)
        except PeerError as error:
            entry["error"] = str(error)
            continue
        entry |= peer.extra
        if wrong := _not_finite(outputs):
            entry["wrong"] = wrong
        elif judged is None:
            judged = name, outputs
        else:
            entry["difference"], other = output_error(outputs, judged[1])
            if other:
                entry["error"] = other
                continue
            if not entry["difference"] <= tolerance:
                entry["wrong"] = (
                    f"differs from {judged[0]} by {entry['difference']:.1e} in norm, more than {tolerance:.0e}"
                )
        ready.append(name)
    times = in_turns(
        {name: peers[name] for name in ready}, record["peers"], budget, rounds, repeats, case.get("copies", 1)
    )
    for name, rows in times.items():
        if rows:
            entry = record["peers"][name]
            found = summary([s for row in rows for s in row])
            entry |= {"seconds": found["median"], "quartiles": found["quartiles"], "n": found["n"]}
    for name, rows in times.items():
        if name != subject and rows and times.get(subject):
            record["ratios"][name] = paired(times[subject], rows)
    return record


def output_error(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> tuple[float | None, str]:
    """The largest |a - b| / |b| in norm of arrays of one name; and what keeps them from being compared, or ""."""
    if actual.keys() != expected.keys():
        return None, f"expected outputs {', '.join(sorted(expected))}, got {', '.join(sorted(actual)) or 'none'}"
    if wrong := _not_finite(actual):
        return None, wrong
    worst = 0.0
    for name, b in expected.items():
        a = actual[name]
        if a.shape != b.shape or (a.size and a[0] != b[0]):
            return None, f"{name}: expected {_length(b)} numbers, got {_length(a)}"
        worst = max(worst, relative_error(a[1:], b[1:]))
    return worst, ""


def _not_finite(outputs: Mapping[str, np.ndarray]) -> str:
    bad = [name for name, y in outputs.items() if not np.all(np.isfinite(y))]
    return f"{', '.join(bad)}: not finite" if bad else ""


def _length(a: np.ndarray) -> int:
    return int(a[0]) if a.size else 0


def in_turns(
    peers: Mapping[str, PeerProcess],
    entries: dict[str, Any],
    budget: Budget,
    rounds: int,
    repeats: int,
    copies: int = 1,
) -> dict[str, list[list[float]]]:
    """name -> one row of times a round. A peer that fails is left out from then on. copies: of what is timed in one run."""
    times: dict[str, list[list[float]]] = {name: [] for name in peers}
    longest, fastest = 0.0, dict[str, float]()
    for turn in range(-1, rounds):  # the first is not counted: what is prepared is not always warm
        if turn >= 0 and (budget.left if turn >= FEW else budget.patience) < 1.2 * longest:
            break
        began = time.monotonic()
        for name in list(peers) if turn % 2 == 0 else list(peers)[::-1]:
            if "error" in entries[name]:
                continue
            try:
                if turn < 0:
                    fastest[name] = min(peers[name].time(1, budget.patience))
                    continue
                ahead = min(AHEAD, int(WARM / max(fastest[name] * copies, 1e-9)))
                row = peers[name].time(ahead + repeats, budget.patience)
                fastest[name] = min(row)
                times[name].append(row[ahead:])
            except PeerError as error:
                entries[name]["error"] = str(error)
            finally:
                time.sleep(SETTLE)
        longest = max(longest, time.monotonic() - began) if turn else time.monotonic() - began
    return times
