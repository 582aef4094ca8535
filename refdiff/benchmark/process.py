"""The harness's end of a peer: its process, started when first asked and again after it failed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PeerError", "PeerProcess"]


class PeerError(RuntimeError):
    """A peer failed, ended or took too long; the message is one line."""


class PeerProcess:
    """command: what starts it; environment: variables beside those of this process; rests: the process is stopped whenever
    it is not asked anything, so that worker threads of its own that spin take no core from the peer whose turn it is.

    with PeerProcess([sys.executable, "-m", "my_peer"]) as peer:
        outputs = peer.prepare(case, timeout=60)
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
        rests: bool = False,
    ) -> None:
        self.command, self.environment, self.folder = list(command), dict(environment or {}), folder
        self.rests = rests and hasattr(signal, "SIGSTOP")
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: Any = None
        self._rest = b""
        self.extra: dict[str, Any] = {}  # what `prepare` said beside its arrays

    def start(self) -> None:
        """Start the process without waiting for it: several then start at once."""
        self._start()

    def about(self, timeout: float = 60) -> dict[str, Any]:
        """Versions and settings."""
        return self.call({"do": "about"}, timeout)

    def prepare(self, case: Mapping[str, Any], timeout: float) -> dict[str, np.ndarray]:
        """Make the case ready to be timed.   -> its outputs, as `protocol.sketch` leaves them."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            self.extra = self.call({"do": "prepare", "case": dict(case), "output": str(path)}, timeout)
            if not path.exists():
                return {}
            try:
                with np.load(path, allow_pickle=False) as outputs:
                    return dict(outputs)
            except (OSError, ValueError) as error:
                raise PeerError(f"its outputs cannot be read: {error}") from None

    def time(self, repeats: int, timeout: float) -> list[float]:
        """Seconds of each run, which must be positive and finite."""
        seconds = list(map(float, self.call({"do": "time", "repeats": repeats}, timeout)["seconds"]))
        if len(seconds) != repeats or not all(0 < s < float("inf") for s in seconds):
            raise PeerError(f"time: expected {repeats} positive numbers, got {seconds[:8]}")
        return seconds

    def memory(self, timeout: float = 10) -> int:
        """The most bytes that the process has had."""
        return int(self.call({"do": "memory"}, timeout)["bytes"])

    def call(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a message and wait for the answer. PeerError where there is none in time: the process is then gone."""
        if timeout <= 0:
            raise PeerError("no time was left")
        process = self._start()
        self._signal("SIGCONT")
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, timeout)
            reply = json.loads(line)
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise self._lost(f"{message['do']} took longer than {timeout:.3g} s") from None
            wrong = f"expected JSON, it said {line[:100]!r}" if isinstance(error, json.JSONDecodeError) else None
            raise self._lost(wrong) from error
        if "error" in reply:
            self.close()  # memory that it holds, or a GPU that it left in a bad state, is no concern of the next case
            raise PeerError(reply["error"])
        self._signal("SIGSTOP")
        return reply["ok"]

    def close(self) -> None:
        """End the process, as it ends when its input is closed; kill it if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal("SIGCONT", process)
        if process.stdin and process.poll() is None:
            try:
                process.stdin.close()
                process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)  # one that hangs in a driver does not end even so
        for pipe in (process.stdin, process.stdout, self._stderr):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._stderr, self._rest = tempfile.TemporaryFile(), b""  # noqa: SIM115
            try:
                self._process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, cwd=self.folder,
                    env={**os.environ, **self.environment},
                )  # fmt: skip
            except OSError as error:
                self._stderr.close()
                raise PeerError(f"{self.command[0]} does not start: {error}") from None
        return self._process

    def _signal(self, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
        process = process or self._process
        if self.rests and process is not None and process.poll() is None:
            process.send_signal(getattr(signal, name))

    def _line(self, process: subprocess.Popen[bytes], timeout: float) -> bytes:
        assert process.stdout is not None
        end, pipe = time.monotonic() + timeout, process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(pipe, 1 << 16)
            if not part:
                raise EOFError
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _lost(self, why: str | None) -> PeerError:
        """The error of a process that cannot be used any more; it is ended."""
        process = self._process
        assert process is not None
        try:
            status = process.wait(0 if why else 2)
        except subprocess.TimeoutExpired:
            status = None
            process.kill()
        self._stderr.seek(0)
        said = [line.strip() for line in self._stderr.read()[-4000:].decode(errors="replace").splitlines()]
        last = next((line for line in reversed(said) if line), "it said nothing")
        self.close()
        return PeerError(why or f"ended with status {status}: {last[:300]}")
