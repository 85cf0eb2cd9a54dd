"""What an engine needs of CUDA, on a real GPU of any kind; without one these tests skip."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

cudart = pytest.importorskip("cuda.bindings.runtime", reason="no cuda-bindings: pip install 'lymphcad[edge-rtx]'")

from lymphcad_client.edge.cuda import CudaError, Memory, check, load_cuda, this_gpu  # noqa: E402

DRIVER = check(cudart, cudart.cudaDriverGetVersion()) != 0
pytestmark = pytest.mark.skipif(not DRIVER, reason="no NVIDIA driver, so no GPU")
VALUES = np.arange(1 << 20, dtype=np.float32)


@pytest.fixture
def memory():
    with taken({"CROP": VALUES.nbytes, "LOGITS": VALUES.nbytes}) as found:
        yield found


@contextlib.contextmanager
def taken(sizes):
    """Give memory back at the end of a block."""
    memory = Memory(load_cuda(), sizes)
    try:
        yield memory
    finally:
        memory.free()


def read(memory, name, count=1 << 20):
    into = np.zeros(count, np.float32)
    memory.read(name, into)
    memory.wait()
    return into


def free_bytes():
    """Return what is free on the GPU, once CUDA has taken what it takes itself."""
    check(cudart, cudart.cudaFree(0))
    return check(cudart, cudart.cudaMemGetInfo())


def test_the_gpu_is_the_one_that_the_driver_names():
    pynvml = pytest.importorskip("pynvml", reason="no nvidia-ml-py: pip install 'lymphcad[tensorrt]'")
    gpu = this_gpu(load_cuda())
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        named = {
            (pynvml.nvmlDeviceGetName(one), "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(one)))
            for one in handles
        }
    finally:
        pynvml.nvmlShutdown()
    assert (gpu.name, gpu.compute_capability) in named
    assert gpu.target == f"sm{gpu.compute_capability.replace('.', '')}"


def test_what_is_written_is_read_again_from_each_buffer(memory):
    memory.write("CROP", VALUES)
    memory.write("LOGITS", VALUES[::-1].copy())
    assert np.array_equal(read(memory, "CROP"), VALUES)
    assert np.array_equal(read(memory, "LOGITS"), VALUES[::-1])
    assert memory.addresses["CROP"] != memory.addresses["LOGITS"]


def test_what_is_spoiled_is_no_number_and_the_rest_is_left(memory):
    memory.write("CROP", VALUES)
    memory.spoil("CROP", 4 * 10)
    found = read(memory, "CROP")
    assert np.isnan(found[:10]).all()
    assert np.array_equal(found[10:], VALUES[10:])


def test_a_small_batch_takes_the_start_of_a_buffer(memory):
    memory.write("CROP", VALUES)
    memory.write("CROP", np.full(3, -1, np.float32))
    assert read(memory, "CROP", 5).tolist() == [-1, -1, -1, 3, 4]


def test_memory_that_is_short_is_said_and_nothing_is_left_allocated():
    free = free_bytes()
    with pytest.raises(CudaError, match="out of memory"):
        Memory(load_cuda(), {"CROP": 1 << 30, "MAPS": 1 << 50})
    assert free_bytes() >= free - (1 << 28)
    with taken({"CROP": 1 << 20}) as memory:  # and the GPU goes on
        memory.write("CROP", VALUES[:4])
        assert read(memory, "CROP", 4).tolist() == [0, 1, 2, 3]


def test_memory_is_given_back():
    free = free_bytes()
    with taken({"CROP": 1 << 30}):
        assert free_bytes() <= free - (1 << 30)
    assert free_bytes() >= free - (1 << 28)
