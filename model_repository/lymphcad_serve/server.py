"""Start a real tritonserver on loopback: the one on PATH, or the one that pip installs; and leave nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad_client.triton import TritonScorer

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad_serve.tritonserver import installed_server

if TYPE_CHECKING:
    from types import TracebackType

_LOOPBACK = "127.0.0.1"
_FREE = range(20000, 32000)
_PR_SET_PDEATHSIG = 1
_STOP_S = 20.0
_ANSWERED = "All models are stopped"
"""What Triton 24.10 logs when a stop has seen every request in flight answered."""


@dataclass(frozen=True)
class Ports:
    """Of the server, on loopback."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002


def free_ports() -> Ports:
    """Return three ports that nothing listens on; below those that the kernel hands to outgoing connections."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < len(fields(Ports)):
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((_LOOPBACK, secrets.choice(_FREE)))
                found.append(one.getsockname()[1])
    return Ports(*found)


class Server:
    """A tritonserver on a model repository; a context manager that stops it.

    Parameters
    ----------
    repository
        For the kind of server that runs.
    ports
        To listen on.
    ready_s
        How long it may take to load, seconds.
    config
        Which of the repository's configurations, e.g. ``v2``; what it has in use if None.

    Raises
    ------
    CommandError
        If a port is taken or there is no server to start.
    ServerError
        ``server_not_ready`` if it stops or does not become ready; the end of its log is in the message.
    """

    def __init__(self, repository: Path, ports: Ports, ready_s: float = 120.0, config: str | None = None) -> None:
        self.address = f"grpc://{_LOOPBACK}:{ports.grpc}"
        self._prefix = f"lymphcad-{os.getpid()}-{ports.grpc}"
        self._folder = Path(tempfile.mkdtemp(prefix="lymphcad-server-"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for port in (ports.grpc, ports.http, ports.metrics):
                _check_free(port)
            self._start(repository, ports, config)
            self._wait(ready_s)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the server has written."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ValueError("the server has been stopped")
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status of a server that has stopped by itself, None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """Stop the server and its stubs, and remove their shared memory and files."""
        if self._process is not None:
            self._process.terminate()
            deadline = time.monotonic() + _STOP_S
            # Triton takes seconds to unload what ends with it anyway, a stub a second.
            while self.poll() is None and _ANSWERED not in self.log and time.monotonic() < deadline:
                time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError):  # the last of the group has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for region in Path("/dev/shm").glob(f"{self._prefix}*"):  # noqa: S108 - where Linux keeps shared memory
            region.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, repository: Path, ports: Ports, config: str | None) -> None:
        on_path = shutil.which("tritonserver")
        environment = dict(os.environ)
        command = [on_path] if on_path else _embedded(self._folder, environment)
        command += [
            f"--model-repository={repository}",
            f"--grpc-address={_LOOPBACK}", f"--grpc-port={ports.grpc}",
            f"--http-address={_LOOPBACK}", f"--http-port={ports.http}",
            f"--metrics-address={_LOOPBACK}", f"--metrics-port={ports.metrics}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--exit-timeout-secs=10",
            "--disable-auto-complete-config",  # ours are complete; asking each model first takes a second or two
        ]  # fmt: skip
        if config is not None:
            command.append(f"--model-config-name={config}")
        with (self._folder / "log").open("wb") as log:
            # A session of its own: Ctrl-C in a terminal reaches us first, and we stop it in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _wait(self, ready_s: float) -> None:
        deadline = time.monotonic() + ready_s
        while True:
            if self.poll() is not None:
                raise ServerError(
                    Reason.SERVER_NOT_READY, f"tritonserver stopped while it loaded: {self._last_words()}"
                )
            try:
                TritonScorer(self.address, timeout_s=2).close()
            except ServerError as error:
                waiting = error.reason in (Reason.SERVER_AWAY, Reason.SERVER_NOT_READY, Reason.SERVER_TIMEOUT)
                if not waiting or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.1)

    def _last_words(self) -> str:
        lines = [line for line in self.log.splitlines() if line.startswith("E") or line.startswith("error")]
        return " | ".join(lines[-3:]) or "it wrote no error; see that its libraries load"


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            raise CommandError(
                f"port {port} on {_LOOPBACK} is taken: stop what listens there, or choose others with --grpc-port,"
                " --http-port and --metrics-port"
            ) from None


def _embedded(folder: Path, environment: dict[str, str]) -> list[str]:
    """Lay out the server of nvidia-pytriton, and return how to call it."""
    package, stub = installed_server()
    backend = folder / "backends" / "python"
    shutil.copytree(package / "backends" / "python", backend)
    shutil.copy2(stub / "triton_python_backend_stub", backend)
    libraries = [package.parents[1] / "nvidia_pytriton.libs", Path(sys.base_prefix) / "lib"]
    given = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = ":".join([*map(str, libraries), *([given] if given else [])])
    # The stub takes the first python3 on PATH, and with it that environment's packages.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    return [str(package / "bin" / "tritonserver"), f"--backend-directory={folder / 'backends'}"]


def _die_with_parent() -> None:
    """Let the kernel stop the server should this process be killed with no chance to do it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
