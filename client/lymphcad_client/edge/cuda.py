"""What an engine needs of NVIDIA's CUDA runtime: a GPU, memory, a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_ALL_ONES = 0xFF
"""A byte; four of them are a float32 that is no number."""


class CudaError(Exception):
    """A call failed; the message is what CUDA says of it."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes
    ----------
    name
        E.g. ``NVIDIA GeForce RTX 4090``.
    compute_capability
        E.g. ``8.9``.
    """

    name: str
    compute_capability: str

    @property
    def target(self) -> str:
        """What ``lymphcad plan --rtx`` calls it, e.g. ``sm89``."""
        return f"sm{self.compute_capability.replace('.', '')}"


def load_cuda() -> Any:
    """Import NVIDIA's Python binding of the CUDA runtime.

    Returns
    -------
    module
        ``cuda.bindings.runtime``; each of its calls returns a tuple, an error code first.

    Raises
    ------
    CommandError
        If it is not installed or cannot be loaded; with what to install.
    """
    wanted = "pip install 'lymphcad[edge-rtx]' brings it, or take --runner openvino"
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("cuda", "cuda.bindings"):
            raise CommandError(f"the package cuda-bindings is not installed: {wanted}") from None
        said = " ".join(str(error).split())
        raise CommandError(f"the package cuda-bindings is installed and cannot be loaded ({said}): {wanted}") from None
    return runtime


def this_gpu(cuda: Any) -> Gpu:
    """Return the first GPU that CUDA shows to this process, which is the one that it uses.

    Parameters
    ----------
    cuda
        From `load_cuda`.

    Raises
    ------
    CommandError
        If there is none; with what CUDA says.
    """
    try:
        if not check(cuda, cuda.cudaDriverGetVersion()):
            raise CudaError("NVIDIA's driver is not installed")
        if not check(cuda, cuda.cudaGetDeviceCount()):
            raise CudaError("CUDA counts none")
        found = check(cuda, cuda.cudaGetDeviceProperties(0))
    except CudaError as error:
        raise CommandError(
            f"no usable NVIDIA GPU was found ({error}): install NVIDIA's driver for CUDA 13 if there is one, or take"
            " --runner openvino"
        ) from None
    return Gpu(found.name.decode(errors="replace"), f"{found.major}.{found.minor}")


def check(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Return what a call gave, None if that is nothing but its error code.

    Parameters
    ----------
    cuda
        From `load_cuda`.
    answer
        What the call returned.

    Raises
    ------
    CudaError
        If the error code is one.
    """
    code, *values = answer
    if code != cuda.cudaError_t.cudaSuccess:
        unknown, text = cuda.cudaGetErrorString(code)
        raise CudaError(code.name if unknown != cuda.cudaError_t.cudaSuccess else text.decode())
    return values[0] if values else None


class Memory:
    """Memory on the GPU, and the stream on which it is copied and computed with.

    Parameters
    ----------
    cuda
        From `load_cuda`.
    sizes
        Of the buffers, bytes, by their names.

    Attributes
    ----------
    stream : int
        Handle of the stream.
    addresses : dict of str to int
        Of the buffers.

    Raises
    ------
    CudaError
        If memory is short or a call fails; nothing is left allocated then.
    """

    def __init__(self, cuda: Any, sizes: dict[str, int]) -> None:
        self._cuda = cuda
        # TensorRT waits for the whole GPU on the default stream.
        self._stream = check(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self.stream = int(self._stream)
        self.addresses: dict[str, int] = {}
        try:
            for name, size in sizes.items():
                self.addresses[name] = int(check(cuda, cuda.cudaMalloc(size)))
        except CudaError:
            self.free()
            raise

    def write(self, name: str, values: Floats) -> None:
        """Copy contiguous values to the start of a buffer."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self.addresses[name], values.ctypes.data, values.nbytes, kind)

    def read(self, name: str, into: Floats) -> None:
        """Copy the start of a buffer to a contiguous array; it is there after `wait`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(into.ctypes.data, self.addresses[name], into.nbytes, kind)

    def spoil(self, name: str, size: int) -> None:
        """Fill the first bytes of a buffer with NaN, so that what nobody writes does not pass for an answer."""
        check(self._cuda, self._cuda.cudaMemsetAsync(self.addresses[name], _ALL_ONES, size, self._stream))

    def wait(self) -> None:
        """Wait until all that was asked for is done."""
        check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))

    def free(self) -> None:
        """Give everything back.

        Raises
        ------
        CudaError
            If a call fails; the others are made all the same.
        """
        answers = [self._cuda.cudaFree(address) for address in self.addresses.values()]
        answers.append(self._cuda.cudaStreamDestroy(self._stream))
        for answer in answers:
            check(self._cuda, answer)

    def _copy(self, to: int, of: int, size: int, kind: Any) -> None:
        check(self._cuda, self._cuda.cudaMemcpyAsync(to, of, size, kind, self._stream))
