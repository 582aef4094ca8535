"""Runs tests with every kernel built under AddressSanitizer, which also sees an access past a static shared array:

python -m emulator.sanitized engines/cuda      (in tests/; arguments are pytest's)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .build import COMPILER


def environment(log: str) -> dict[str, str]:
    """In which Python starts with AddressSanitizer; its reports go to files whose names begin with log."""
    assert COMPILER, "the emulator needs g++"
    command = [COMPILER, "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    # Leaks are Python's own; the warnings are of fibres that are left for good when a kernel fails.
    options = f"detect_leaks=0:detect_stack_use_after_return=0:log_path={log}"
    return {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": options,
        "REFDIFF_SANITIZE": "1",
    }


def main(arguments: list[str]) -> int:
    """pytest's exit status; what AddressSanitizer said is printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        status = subprocess.run(command, env=environment(f"{folder}/report"), check=False).returncode
        for report in sorted(Path(folder).iterdir()):
            print(report.read_text(), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
