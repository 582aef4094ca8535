"""python -m benchmarks.gallery NAME ... (`make gallery NAME=digits`): entries of docs/gallery made anew, and their page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.page import page, records
from benchmarks.gallery.work import GALLERY, ROOT, Work
from refdiff.storage import replace_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Make entries, then the page of all.   -> the exit status"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=(__doc__ or "").strip())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENTRIES)}; none: the page alone")
    parser.add_argument("--out", type=Path, default=GALLERY, help="where the entries lie (default: docs/gallery)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gallery", help="where trained runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every run: for a trial")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in ENTRIES:
            parser.error(f"NAME: expected one of {', '.join(ENTRIES)}, got {name!r}")
    works = [
        Work(name, ENTRIES[name][0], options.out, options.runs, options.set, not options.quiet)
        for name in options.names
    ]  # all of the commit as it is now, before the first of them is written
    for work in works:
        ENTRIES[work.name][1](work)
        print(f"{work.write()} is written.", flush=True)
    text = page(records(options.out))
    replace_file(options.out.with_suffix(".md"), lambda file: file.write(text.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
