"""Start a real tritonserver on loopback: the one on PATH, or the one that pip installs; and leave nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad_client.triton import TritonScorer

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad_serve.tritonserver import installed_server

if TYPE_CHECKING:
    from types import TracebackType

    from lymphcad_serve.certificates import ServerTls

_LOOPBACK = "127.0.0.1"
_FREE = range(20000, 32000)
_PR_SET_PDEATHSIG = 1
_STOP_S = 20.0
_ANSWERED = "All models are stopped"
"""What Triton 24.10 logs when a stop has seen every request in flight answered."""


@dataclass(frozen=True)
class Ports:
    """Of the server.

    Attributes
    ----------
    grpc, metrics
        Of requests, and of what Prometheus reads.
    http
        Of requests by HTTP, which nothing of ours uses; off if None.
    """

    grpc: int = 8001
    metrics: int = 8002
    http: int | None = None


@dataclass(frozen=True)
class Listening:
    """Where a server is reached, and by whom.

    Attributes
    ----------
    host
        Address to listen on for requests.
    metrics_host
        For metrics, which are plain text.
    tls
        Who may ask; everybody in plain text if None.
    """

    host: str = _LOOPBACK
    metrics_host: str = _LOOPBACK
    tls: ServerTls | None = None

    @property
    def on_network(self) -> bool:
        """Whether other machines can reach it."""
        return not (_is_loopback(self.host) and _is_loopback(self.metrics_host))

    @property
    def own(self) -> str:
        """By which this machine reaches it."""
        everywhere = {"0.0.0.0": _LOOPBACK, "::": "[::1]"}  # noqa: S104 - it is what is listened on that is looked up
        return everywhere.get(self.host, self.host)


def free_ports() -> Ports:
    """Return two ports that nothing listens on; below those that the kernel hands to outgoing connections."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < 2:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((_LOOPBACK, secrets.choice(_FREE)))
                found.append(one.getsockname()[1])
    return Ports(*found)


class Server:
    """A tritonserver on a model repository; a context manager that stops it.

    It loads what lies in the repository, and no request can change that. On a network it takes no request that names
    shared memory.

    Parameters
    ----------
    repository
        For the kind of server that runs.
    ports
        To listen on.
    ready_s
        How long it may take to load, seconds.
    listening
        Where it is reached; loopback in plain text if not given.
    version
        Of the repository, if another than its default; see `lymphcad_serve.repository`.
    stop
        Set it, and the server is not waited for any longer.

    Attributes
    ----------
    address
        For clients on this machine.
    tls
        Of a client that is the server's own; None for plain text.

    Raises
    ------
    CommandError
        If a port is taken, there is no server to start, a certificate cannot be used, or the only server here is the
        one that pip installs, whose vulnerabilities are known, and it was to be put on a network.
    ServerError
        ``server_not_ready`` if it stops or does not become ready; the end of its log is in the message.
    """

    def __init__(
        self,
        repository: Path,
        ports: Ports,
        ready_s: float = 120.0,
        listening: Listening | None = None,
        version: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._listening, self._version, self._stop = listening or Listening(), version, stop or threading.Event()
        scheme = "grpc" if self._listening.tls is None else "grpcs"
        self.address = f"{scheme}://{self._listening.own}:{ports.grpc}"
        self.tls = None if self._listening.tls is None else self._listening.tls.of_itself()
        self._prefix = f"lymphcad-{os.getpid()}-{ports.grpc}"
        self._folder = Path(tempfile.mkdtemp(prefix="lymphcad-server-"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for host, port in (
                (self._listening.host, ports.grpc),
                (self._listening.metrics_host, ports.metrics),
                (self._listening.host, ports.http),
            ):
                if port is not None:
                    _check_free(host, port)
            self._start(repository, ports)
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
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def log_file(self) -> Path:
        """Where it writes that."""
        return self._folder / "log"

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

    def _start(self, repository: Path, ports: Ports) -> None:
        on_path = shutil.which("tritonserver")
        environment = dict(os.environ)
        listening = self._listening
        if on_path is None and listening.on_network:
            raise CommandError(
                "there is no tritonserver on PATH, and the one that pip installs has known vulnerabilities and stays on"
                " loopback: use Triton's container, 26.07 or later (docs/deploy.md)"
            )
        command = [on_path] if on_path else _embedded(self._folder, environment)
        command += [
            f"--model-repository={repository}",
            f"--grpc-address={listening.host}", f"--grpc-port={ports.grpc}",
            f"--metrics-address={listening.metrics_host}", f"--metrics-port={ports.metrics}",
            f"--allow-http={'false' if ports.http is None else 'true'}",
            "--model-control-mode=none",
            "--metrics-config=summary_latencies=true",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--exit-timeout-secs=10",
            "--disable-auto-complete-config",  # ours are complete; asking each model first takes a second or two
        ]  # fmt: skip
        if ports.http is not None:
            command += [f"--http-address={listening.host}", f"--http-port={ports.http}"]
        if self._version is not None:
            command.append(f"--model-config-name=v{self._version}")
        if listening.tls is not None:
            files = listening.tls
            command += [
                "--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true",
                f"--grpc-server-cert={files.cert}", f"--grpc-server-key={files.key}", f"--grpc-root-cert={files.ca}",
            ]  # fmt: skip
        if listening.on_network:
            # What only a process on this machine can mean: refused without a key that nobody has.
            command.append(f"--grpc-restricted-protocol=shared-memory,trace,logging:key={secrets.token_hex(32)}")
        with self.log_file.open("wb") as log:
            # A session of its own: Ctrl-C in a terminal reaches us first, and we stop it in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _wait(self, ready_s: float) -> None:
        deadline = time.monotonic() + ready_s
        while not self._stop.is_set():
            if self.poll() is not None:
                raise ServerError(Reason.SERVER_NOT_READY, f"tritonserver stopped while it loaded: {self.last_words()}")
            try:
                TritonScorer(self.address, timeout_s=2, tls=self.tls).close()
            except ServerError as error:
                waiting = error.reason in (Reason.SERVER_AWAY, Reason.SERVER_NOT_READY, Reason.SERVER_TIMEOUT)
                if not waiting or time.monotonic() > deadline:
                    raise
            else:
                return
            self._stop.wait(0.1)

    def last_words(self) -> str:
        """Return the last errors of its log."""
        lines = [line for line in self.log.splitlines() if line.startswith("E") or line.startswith("error")]
        return " | ".join(lines[-3:]) or "it wrote no error; see that its libraries load"


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"port {port} on {host} cannot be listened on ({error.strerror}): stop what listens there, or choose"
                " others with --grpc-port and --metrics-port"
            ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
