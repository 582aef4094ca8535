"""Speed, measured so that it can be believed: each peer in a process of its own, outputs compared before anything is timed,
the peers taking turns, the median of the paired ratios with its quartiles.

    budget = Budget(60)
    peers = {name: PeerProcess([sys.executable, "-m", "refdiff.benchmark.host", name]) for name in ("reference", "cpu")}
    record = measure(case, peers, subject="cpu", tolerance=1e-4, budget=budget)
    print(markdown(result("cpu", [record])))

A peer is any program that speaks `protocol`. The suites of this project stand in benchmarks/.
"""

from .harness import Budget, measure
from .machine import result
from .process import PeerError, PeerProcess
from .protocol import serve
from .tables import markdown

__all__ = ["Budget", "PeerError", "PeerProcess", "markdown", "measure", "result", "serve"]
