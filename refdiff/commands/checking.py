"""Claims, of ours and of others, and speed."""

from __future__ import annotations

import argparse
import json

__all__ = ["audit", "bench", "verify"]


def verify(options: argparse.Namespace) -> int:
    """Check every claim of docs/equations.md, one line each: the worst error found beside its bound."""
    from ..testing.report import line, summary, to_dict
    from ..testing.report import verify as run

    verdicts = []
    for verdict in run(random=options.random, match=options.match):
        verdicts.append(verdict)
        if not options.json:
            print(line(verdict, places=True), flush=True)
    if not verdicts:
        raise ValueError(
            f"--match: expected words of a claim, its group, its source or its function, got {options.match!r}; none fits"
        )
    print(json.dumps([to_dict(v) for v in verdicts]) if options.json else summary(verdicts))
    return int(not all(v.holds for v in verdicts))


def audit(options: argparse.Namespace) -> int:
    """Run the claims about schedulers on somebody's: an adapter of yours, or a scheduler of diffusers, as module:Class."""
    from collections import Counter

    from ..testing.audit import audit as run
    from ..testing.audit import report
    from ..testing.checked_scheduler import collected
    from ..testing.loading import current_folder_for, load
    from ..testing.loading import options as parse

    # What the audited code warns of while it is imported says nothing of the claims.
    with current_folder_for(options.target.partition(":")[0]), collected(Counter()):
        subject = load(options.target, parse(options.options))
        verdicts = run(
            subject,
            match=options.match,
            variance=options.variance,
            all_steps=options.all_steps or None,
            dtype=options.dtype,
        )
    print(report(verdicts, as_json=options.json))
    return int(not all(v.holds for v in verdicts))


def bench(options: argparse.Namespace) -> int:
    """Measure speed: this machine's engines side by side; where a step's time goes; a CUDA kernel of yours beside ours."""
    from ..benchmark.command import measured, run

    found, text = run(options)
    print(json.dumps(found) if options.json else text)
    return int(not measured(found))
