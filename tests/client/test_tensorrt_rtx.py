"""The runner for RTX GPUs, without a GPU: no engine is executed here.

What is real: TensorRT-RTX, which builds the engines and refuses to load one; NVIDIA's binding of the CUDA runtime,
whose error codes are those of a machine without a driver; ONNX Runtime before and after the engine. What is made up, in
the tests that say so: a GPU of which this process's own memory plays the part, and on which ONNX Runtime computes the
CNN. That proves which bytes are copied where, in which order, and what becomes of an error; nothing of speed, of the
numbers of an engine or of its loading, and no call on its context: those are looked up in what is installed, and
compared with the stubs of TensorRT 10 in tests/export/test_tensorrt_interface.py.
"""
# ruff: noqa: N802, N803, N815 - CUDA's own names

from __future__ import annotations

import ast
import ctypes
import inspect
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX: pip install 'lymphcad[edge-rtx]'")
cudart = pytest.importorskip("cuda.bindings.runtime", reason="no cuda-bindings: pip install 'lymphcad[edge-rtx]'")

import lymphcad_client.edge.cuda as cuda_module  # noqa: E402
import lymphcad_client.edge.tensorrt_rtx as runner_module  # noqa: E402
import onnxruntime  # noqa: E402
from lymphcad_client.edge.cuda import CudaError, Gpu, Memory, check, load_cuda, this_gpu  # noqa: E402
from lymphcad_client.edge.openvino import OpenVino  # noqa: E402
from lymphcad_client.edge.rtx_engine import Opened, choose_engine, open_engine  # noqa: E402
from lymphcad_client.edge.runner import check_runner, choose_runner  # noqa: E402
from lymphcad_client.edge.tensorrt_rtx import TensorRtRtx  # noqa: E402
from lymphcad_export.plan.builders import ahead  # noqa: E402
from lymphcad_export.plan.publish import write_engines  # noqa: E402

from lymphcad.cli import main  # noqa: E402
from lymphcad.errors import BundleError, CommandError, Reason, ServerError  # noqa: E402
from lymphcad.golden import GoldenError, read_golden  # noqa: E402
from lymphcad.plan import Sidecar, sidecar_of  # noqa: E402
from lymphcad.tensorrt_library import load  # noqa: E402

pytestmark = pytest.mark.torch
LARGEST = 2
DRIVER = check(cudart, cudart.cudaDriverGetVersion()) != 0
without_a_gpu = pytest.mark.skipif(DRIVER, reason="there is a driver")
OURS = Path(cuda_module.__file__)


@pytest.fixture(scope="session")
def engines(half_bundle, tmp_path_factory) -> Path:
    """Return a folder of real engines for three kinds of GPU."""
    out = tmp_path_factory.mktemp("rtx") / "engines"
    write_engines(half_bundle, out, ahead(("sm86", "sm89", "sm120")), LARGEST, "command")
    return out


# Without a GPU.


@without_a_gpu
def test_no_gpu_is_said_with_what_to_do(half_bundle, engines):
    with pytest.raises(CommandError) as caught:
        TensorRtRtx(half_bundle, engines)
    assert str(caught.value) == (
        "no usable NVIDIA GPU was found (NVIDIA's driver is not installed): install NVIDIA's driver for CUDA 13 if"
        " there is one, or take --runner openvino"
    )


@without_a_gpu
def test_a_command_that_asks_for_it_ends_and_one_that_leaves_the_choice_goes_on(half_bundle, engines, tmp_path, capsys):
    image = tmp_path / "a.dcm"
    image.write_bytes(b"not looked into")
    with pytest.raises(SystemExit) as ended:
        main(
            ["score", str(image), "--node", "1,1", "--out", str(tmp_path / "out"), "--edge",
             str(half_bundle.path), "--runner", "tensorrt-rtx", "--engines", str(engines)]
        )  # fmt: skip
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lymphcad: no usable NVIDIA GPU was found")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    chosen = choose_runner(half_bundle, engines=engines)
    assert isinstance(chosen.runner, OpenVino)
    assert chosen.why.startswith("no engine can be run, for no usable NVIDIA GPU was found")
    chosen.runner.close()


@without_a_gpu
def test_an_error_code_of_the_real_binding_becomes_what_cuda_says():
    real = load_cuda()
    assert check(real, real.cudaDriverGetVersion()) == 0
    with pytest.raises(CudaError, match=r"^CUDA driver version is insufficient for CUDA runtime version$"):
        check(real, real.cudaGetDeviceCount())
    with pytest.raises(CudaError, match="driver version is insufficient"):
        Memory(real, {"CROP": 4})
    memory = Memory(FakeCuda(), {"CROP": 4})
    memory._cuda = real
    values = np.zeros(1, np.float32)
    calls = [lambda: memory.write("CROP", values), lambda: memory.read("CROP", values), memory.wait, memory.free]
    for call in [*calls, lambda: memory.spoil("CROP", 4)]:
        memory.addresses = {"CROP": 1}
        with pytest.raises(CudaError, match="driver version is insufficient"):
            call()


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        ((cudart.cudaError_t.cudaErrorNoDevice, None), "no CUDA-capable device is detected"),
        ((cudart.cudaError_t.cudaErrorInsufficientDriver, None), "CUDA driver version is insufficient for CUDA"),
        ((cudart.cudaError_t.cudaSuccess, 0), "CUDA counts none"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_said(count, reason):
    cuda = FakeCuda()
    cuda.cudaGetDeviceCount = lambda: count
    with pytest.raises(CommandError, match=rf"^no usable NVIDIA GPU was found \({reason}.*\): install .+ openvino$"):
        this_gpu(cuda)


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("tensorrt_rtx", "tensorrt_rtx"),
        ("cuda.bindings", "cuda-bindings"),
        ("cuda", "cuda-bindings"),
        ("onnxruntime", "onnxruntime"),
    ],
)
def test_a_missing_package_is_said_with_the_extra(half_bundle, engines, monkeypatch, module, package):
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "lymphcad_client.edge.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    words = rf"^the package {package} is not installed: pip install 'lymphcad\[edge-rtx\]'"
    with pytest.raises(CommandError, match=words):
        TensorRtRtx(half_bundle, engines)


def test_a_binding_that_cannot_be_loaded_is_said_in_one_sentence(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "cuda" / "bindings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "runtime.py").write_text("raise ImportError('libcudart.so.13:\\n cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cuda" / "__init__.py").write_text("")
    with pytest.raises(CommandError, match=r"cannot be loaded \(libcudart.so.13: cannot open\): pip install 'lymphcad"):
        load_cuda()


def test_a_bundle_without_half_precision_is_refused(probe_bundle, engines):
    with pytest.raises(BundleError, match="has its CNN in fp32, and fp16 was asked for: export it with --precision"):
        TensorRtRtx(probe_bundle, engines)


# Which engine.


@pytest.mark.parametrize(("capability", "name"), [("8.6", "sm86"), ("8.9", "sm89"), ("12.0", "sm120")])
def test_the_engine_of_the_gpus_capability_is_taken(engines, capability, name):
    assert choose_engine(engines, Gpu("NVIDIA RTX", capability)) == engines / f"cnn.{name}.engine"


@pytest.mark.parametrize(("capability", "needs"), [("7.5", "sm75"), ("12.1", "sm121"), ("8.0", "sm80")])
def test_a_folder_for_other_gpus_is_refused_with_what_it_has(engines, capability, needs):
    with pytest.raises(CommandError) as caught:
        choose_engine(engines, Gpu("NVIDIA T4", capability))
    assert str(caught.value) == (
        f"'{engines}' has engines for sm86, sm89, sm120 only, and this machine's NVIDIA T4 needs {needs}: build one"
        f" with `lymphcad plan --rtx {needs}`, or take --runner openvino"
    )


def test_a_gpu_that_no_engine_can_be_built_for_is_refused_whatever_engine_is_named(half_bundle, engines, monkeypatch):
    monkeypatch.setattr(runner_module, "load_cuda", lambda: FakeCuda(capability=(9, 0)))
    _, version = load("tensorrt_rtx")
    for named in (engines, engines / "cnn.sm86.engine"):
        with pytest.raises(CommandError) as caught:
            TensorRtRtx(half_bundle, named)
        assert str(caught.value) == (
            f"TensorRT-RTX {version} runs on sm75, sm80, sm86, sm89, sm120, sm121, and this machine's NVIDIA RTX A2000"
            " is sm90: serve the bundle from Triton with a TensorRT plan, which `lymphcad plan` builds on such a GPU,"
            " or take --runner openvino"
        )


def test_one_engine_is_taken_as_it_is_and_nothing_else_for_one(engines, tmp_path):
    gpu = Gpu("NVIDIA RTX", "8.6")
    assert choose_engine(engines / "cnn.sm89.engine", gpu) == engines / "cnn.sm89.engine"
    with pytest.raises(CommandError, match=r"'.+cnn.sm86.engine.json' is no engine of TensorRT-RTX: name the folder"):
        choose_engine(engines / "cnn.sm86.engine.json", gpu)
    with pytest.raises(CommandError, match=r"there is no '.+': name the folder that `lymphcad plan --rtx` wrote"):
        choose_engine(tmp_path / "nowhere", gpu)
    (tmp_path / "cnn.plan").write_bytes(b"of TensorRT")
    with pytest.raises(CommandError, match=r"' has no engine cnn\.sm\*\.engine: name the folder"):
        choose_engine(tmp_path, gpu)


# A GPU that is made up.


class FakeCuda:
    """The CUDA runtime on this process's own memory: what is asked of a stream is done when it is waited for."""

    cudaError_t = cudart.cudaError_t
    cudaMemcpyKind = cudart.cudaMemcpyKind
    cudaStreamNonBlocking = cudart.cudaStreamNonBlocking
    cudaGetErrorString = staticmethod(cudart.cudaGetErrorString)

    def __init__(self, capability=(8, 6)):
        self.capability = capability
        self.memory, self.streams, self.waiting, self.calls = {}, {}, [], []
        self.failing = {}

    def done(self, call, *values):
        """Return a code as the real calls do, which give None for a value where they fail."""
        self.calls.append(call)
        if code := self.failing.get(call):
            return (code, *(None for _ in values))
        return (cudart.cudaError_t.cudaSuccess, *values)

    def cudaDriverGetVersion(self):
        return self.done("cudaDriverGetVersion", 13000)

    def cudaGetDeviceCount(self):
        return self.done("cudaGetDeviceCount", 1)

    def cudaGetDeviceProperties(self, device):
        assert device == 0
        found = cudart.cudaDeviceProp()
        found.name, found.major, found.minor = b"NVIDIA RTX A2000".ljust(256, b"\0"), *self.capability
        return self.done("cudaGetDeviceProperties", found)

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == cudart.cudaStreamNonBlocking
        answer = self.done("cudaStreamCreateWithFlags", cudart.cudaStream_t(7))
        self.streams |= {7: True} if answer[1] is not None else {}
        return answer

    def cudaStreamDestroy(self, stream):
        del self.streams[int(stream)]
        return self.done("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream):
        assert int(stream) in self.streams
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()
        return self.done("cudaStreamSynchronize")

    def cudaMalloc(self, size):
        buffer = ctypes.create_string_buffer(size)
        answer = self.done("cudaMalloc", ctypes.addressof(buffer))
        self.memory |= {answer[1]: buffer} if answer[1] is not None else {}
        return answer

    def cudaFree(self, devPtr):
        del self.memory[devPtr]
        return self.done("cudaFree")

    def cudaMemsetAsync(self, devPtr, value, count, stream):
        assert count <= len(self.memory[devPtr])
        assert int(stream) in self.streams
        self.waiting.append(lambda: ctypes.memset(devPtr, value, count))
        return self.done("cudaMemsetAsync")

    def cudaMemcpyAsync(self, dst, src, count, kind, stream):
        on_gpu = dst if kind == cudart.cudaMemcpyKind.cudaMemcpyHostToDevice else src
        assert count <= len(self.memory[on_gpu])
        assert int(stream) in self.streams
        self.waiting.append(lambda: ctypes.memmove(dst, src, count))
        return self.done("cudaMemcpyAsync")


class FakeContext:
    """An engine's context: the bundle's own CNN, computed by ONNX Runtime on the addresses that it is given."""

    def __init__(self, cuda, bundle):
        self.cuda, self.largest = cuda, LARGEST
        self.session = onnxruntime.InferenceSession(bundle.cnn("fp16"), providers=["CPUExecutionProvider"])
        self.addresses, self.batches = {}, []
        self.maps, self.lazy, self.begins = bundle.manifest.map_size, False, True

    def set_input_shape(self, name, shape):
        assert name == "CROP"
        self.shape = shape
        return shape[0] <= self.largest

    def get_tensor_shape(self, name):
        return [self.shape[0], 2, *(self.maps if name == "MAPS" else ())]

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        assert stream_handle in self.cuda.streams
        self.cuda.waiting.append(self.compute)
        return self.begins

    def compute(self):
        self.batches.append(self.shape[0])
        answers = self.session.run(["LOGITS", "MAPS"], {"CROP": self.array("CROP", self.shape)})
        for name, answer in zip(["LOGITS", "MAPS"], answers, strict=True):
            if not self.lazy:
                self.array(name, answer.shape)[...] = answer

    def array(self, name, shape):
        content = (ctypes.c_char * (4 * int(np.prod(shape)))).from_address(self.addresses[name])
        return np.frombuffer(content, np.float32).reshape(shape)


@pytest.fixture
def made_up(half_bundle, monkeypatch):
    """Return CUDA with a GPU that is made up; only what the runner loads is replaced."""
    cuda = FakeCuda()
    monkeypatch.setattr(runner_module, "load_cuda", lambda: cuda)
    return cuda


@pytest.fixture
def opened(half_bundle, engines, made_up, monkeypatch):
    """Return a runner on the GPU that is made up, its CUDA and its context."""
    context = FakeContext(made_up, half_bundle)
    monkeypatch.setattr(
        runner_module, "open_engine", lambda *_: Opened(context, None, None, None, ["it said\n why", "and more"])
    )
    return TensorRtRtx(half_bundle, engines), made_up, context


def windows(bundle, count):
    """Return `count` windows, and what they must give; each is another one."""
    expected = read_golden(bundle, "fp16")
    rows = np.arange(count) % len(expected["IMAGE"])
    inputs = {name: expected[name][rows] for name in ("IMAGE", "SPACING_MM", "CENTER")}
    return inputs, {name: expected[name][rows] for name in ("PROBABILITY", "HEATMAP")}


def right(answer, expected):
    np.testing.assert_allclose(answer["PROBABILITY"], expected["PROBABILITY"], atol=1e-3)
    assert np.abs(answer["HEATMAP"].astype(int) - expected["HEATMAP"]).max() <= 2
    assert {name: value.dtype for name, value in answer.items()} == {"PROBABILITY": np.float32, "HEATMAP": np.uint8}


def test_the_made_up_calls_take_what_the_real_ones_take():
    for name, call in inspect.getmembers(FakeCuda, inspect.isfunction):
        if name.startswith("cuda"):
            ours = list(inspect.signature(call).parameters)[1:]
            assert ours == list(inspect.signature(getattr(cudart, name)).parameters), name


def test_what_goes_over_the_gpu_comes_back_as_the_bundle_was_proven_with(opened, half_bundle):
    runner, cuda, context = opened
    version = load("tensorrt_rtx")[1]
    assert runner.about == f"TensorRT-RTX {version} on NVIDIA RTX A2000, engine cnn.sm86.engine"
    assert runner.precision == "fp16"
    check_runner(runner, half_bundle)
    assert set(context.batches) == {1}
    size, (rows, columns) = half_bundle.manifest.preprocess.size, half_bundle.manifest.map_size
    held = sorted(len(buffer) for buffer in cuda.memory.values())
    assert held == sorted(LARGEST * 4 * values for values in (size * size, 2, 2 * rows * columns))


@pytest.mark.parametrize(("count", "batches"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_a_batch_larger_than_the_engine_takes_is_split(opened, half_bundle, count, batches):
    runner, _, context = opened
    inputs, expected = windows(half_bundle, count)
    right(runner.run(inputs), expected)
    assert context.batches == batches


def test_threads_do_not_see_each_others_crops(opened, half_bundle):
    runner, _, _ = opened
    inputs, expected = windows(half_bundle, 4)

    def one(row):
        return runner.run({name: value[row : row + 1] for name, value in inputs.items()})

    rows = list(range(4)) * 10
    with ThreadPoolExecutor(4) as pool:
        for row, answer in zip(rows, pool.map(one, rows), strict=True):
            right(answer, {name: value[row : row + 1] for name, value in expected.items()})


def test_an_output_that_the_engine_leaves_unwritten_is_no_answer(opened, half_bundle):
    runner, _, context = opened
    check_runner(runner, half_bundle)
    context.lazy = True
    with pytest.raises(GoldenError):
        check_runner(runner, half_bundle)
    assert np.isnan(runner.run(windows(half_bundle, 1)[0])["PROBABILITY"]).all()


def test_close_gives_all_back_once_and_a_closed_runner_says_so(opened, half_bundle):
    runner, cuda, _ = opened
    assert len(cuda.memory) == 3
    assert cuda.streams
    preprocess, cam = runner._preprocess, runner._cam
    runner._preprocess = SimpleNamespace(run=preprocess.run, close=lambda: None)  # as if it had run before the close
    runner.close()
    runner.close()
    assert (cuda.memory, cuda.streams) == ({}, {})
    with pytest.raises(ServerError, match=r"^runner_error: the runner was closed while it was asked: open it again$"):
        runner.run(windows(half_bundle, 1)[0])
    assert cam._session is None


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamSynchronize"])
def test_a_failure_in_service_is_said_and_what_was_held_is_given_back(opened, half_bundle, call):
    runner, cuda, _ = opened
    cuda.failing[call] = cudart.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(ServerError) as caught:
        runner.run(windows(half_bundle, 1)[0])
    assert str(caught.value) == (
        "runner_error: the GPU failed (an illegal memory access was encountered): start again with what else uses it"
        " closed, or take --runner openvino"
    )
    assert caught.value.reason is Reason.RUNNER_ERROR
    # After such a failure the real calls fail too.
    cuda.failing |= dict.fromkeys(("cudaFree", "cudaStreamDestroy"), cudart.cudaError_t.cudaErrorIllegalAddress)
    runner.close()
    assert (cuda.memory, cuda.streams) == ({}, {})


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaStreamCreateWithFlags"])
def test_memory_that_is_short_is_said_and_nothing_is_held(opened, half_bundle, engines, call):
    _, cuda, _ = opened
    cuda.memory, cuda.streams = {}, {}
    cuda.failing[call] = cudart.cudaError_t.cudaErrorMemoryAllocation
    words = r"^NVIDIA RTX A2000 has no memory for cnn.sm86.engine \(out of memory\): close what else uses it, or take"
    with pytest.raises(CommandError, match=words):
        TensorRtRtx(half_bundle, engines)
    assert (cuda.memory, cuda.streams) == ({}, {})


def test_memory_that_is_short_for_the_last_buffer_gives_the_others_back():
    cuda = FakeCuda()
    real = cuda.cudaMalloc
    asked = iter([real, real, lambda _: (cudart.cudaError_t.cudaErrorMemoryAllocation, None)])
    cuda.cudaMalloc = lambda size: next(asked)(size)
    with pytest.raises(CudaError, match="out of memory"):
        Memory(cuda, {"CROP": 4, "LOGITS": 4, "MAPS": 4})
    assert (cuda.memory, cuda.streams) == ({}, {})


@pytest.mark.parametrize("wrong", ["begins", "maps", "largest"])
def test_an_engine_that_is_not_run_is_said(opened, half_bundle, wrong):
    runner, _, context = opened
    setattr(context, wrong, {"begins": False, "maps": (99, 99), "largest": 0}[wrong])
    with pytest.raises(
        ServerError, match=r"^runner_error: TensorRT-RTX did not run the engine \(it gave no reason\): "
    ):
        runner.run(windows(half_bundle, 1)[0])
    # What an engine with larger maps would write lies beyond the buffer.
    assert context.batches == []


# Whether the engine is the bundle's and the machine's.


def changed(engines, out, **fields):
    """Return a copy of the folder in which the sidecar for 8.6 says something else."""
    shutil.copytree(engines, out)
    sidecar = sidecar_of(out / "cnn.sm86.engine")
    said = Sidecar.model_validate_json(sidecar.read_text())
    sidecar.write_text(said.model_copy(update=fields).model_dump_json())
    return out


def test_an_engine_that_is_not_the_bundles_or_the_machines_is_refused(half_bundle, engines, made_up, tmp_path):
    with pytest.raises(BundleError, match=r"sm89.engine' was built for compute capability 8.9, and .+ A2000 has 8.6"):
        TensorRtRtx(half_bundle, engines / "cnn.sm89.engine")
    with pytest.raises(BundleError, match=r"was built by tensorrt_rtx 1.4.0.1, and this machine has 1\."):
        TensorRtRtx(half_bundle, changed(engines, tmp_path / "older", version="1.4.0.1"))
    with pytest.raises(BundleError, match=r"was built from cnn.fp16.onnx of half@.+, which is not that of the bundle"):
        TensorRtRtx(half_bundle, changed(engines, tmp_path / "other", onnx_sha256="0" * 64))
    damaged = changed(engines, tmp_path / "damaged") / "cnn.sm86.engine"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"does not match the digest in cnn.sm86.engine.json"):
        TensorRtRtx(half_bundle, damaged.parent)
    sidecar_of(damaged).unlink()
    with pytest.raises(BundleError, match=r"has no cnn.sm86.engine.json beside it"):
        TensorRtRtx(half_bundle, damaged.parent)
    assert made_up.memory == {}


@without_a_gpu
def test_an_engine_that_the_real_library_does_not_load_is_said_in_one_sentence(half_bundle, engines, made_up, capfd):
    """The GPU is made up, TensorRT-RTX is not, and it finds none."""
    with pytest.raises(CommandError) as caught:
        TensorRtRtx(half_bundle, engines)
    said = str(caught.value)
    assert re.fullmatch(
        r"the engine '.+cnn.sm86.engine' cannot be loaded \(.+\): close .+, or take --runner openvino", said
    )
    assert "\n" not in said
    assert "it gave no reason" not in said
    assert (made_up.memory, made_up.streams) == ({}, {})
    assert capfd.readouterr() == ("", "")


def test_the_kernels_that_were_checked_are_those_that_score(engines):
    """A library that is made up: the real one needs a GPU to come that far."""
    given = []
    config = SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="lazy")
    loaded = SimpleNamespace(
        get_tensor_dtype=lambda _: "float",
        create_runtime_config=lambda: config,
        create_execution_context=lambda runtime_config: given.append(runtime_config) or "context",
    )
    real = load("tensorrt_rtx")[0]
    library = SimpleNamespace(
        ILogger=real.ILogger,
        Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=lambda _: loaded),
        DataType=SimpleNamespace(FLOAT="float"),
        DynamicShapesKernelSpecializationStrategy=real.DynamicShapesKernelSpecializationStrategy,
    )
    assert open_engine(library, engines / "cnn.sm86.engine").context == "context"
    assert given == [config]
    eager = real.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager
    library.DataType.FLOAT = "another"
    with pytest.raises(CommandError, match=r"cnn.sm86.engine' are not float32: build it again"):
        open_engine(library, engines / "cnn.sm86.engine")


# What is called is there.


def cuda_calls():
    """Return the names that we read of the binding, and the numbers of arguments that those are called with."""
    tree = ast.parse(OURS.read_text())
    of_cuda = {"cuda", "self._cuda"}
    names = {node.attr: set() for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_of(node, of_cuda)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_of(node.func, of_cuda):
            assert not node.keywords
            names[node.func.attr].add(len(node.args))
    return names


def is_of(node, owners):
    return ast.unparse(node.value) in owners


CALLS = cuda_calls()


def test_the_calls_on_cuda_are_found():
    assert {name for name, counts in CALLS.items() if counts} == {
        "cudaDriverGetVersion", "cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaGetErrorString", "cudaMalloc",
        "cudaFree", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamCreateWithFlags", "cudaStreamDestroy",
        "cudaStreamSynchronize",
    }  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_binding_of_cuda_has_the_name_and_takes_as_many_arguments(name):
    found = getattr(cudart, name)
    for count in CALLS[name]:
        inspect.signature(found).bind(*range(count))


def test_what_else_is_read_of_the_binding_is_there():
    assert hasattr(cudart.cudaError_t, "cudaSuccess")
    assert hasattr(cudart.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(cudart.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert isinstance(cudart.cudaDeviceProp().name, bytes)
    assert isinstance(cudart.cudaDeviceProp().major + cudart.cudaDeviceProp().minor, int)
    assert int(cudart.cudaStream_t(7)) == 7
    assert cudart.cudaError_t.cudaErrorNoDevice.name == "cudaErrorNoDevice"


@pytest.mark.skipif(not DRIVER, reason="no NVIDIA driver")
def test_on_an_rtx_gpu_the_engine_computes_what_the_bundle_was_proven_with(half_bundle, tmp_path):
    """Which has never been run."""
    gpu = this_gpu(load_cuda())
    if not hasattr(load("tensorrt_rtx")[0].ComputeCapability, gpu.target.upper()):
        pytest.skip(f"TensorRT-RTX does not run on {gpu.target}")
    write_engines(half_bundle, tmp_path / "engines", ahead((gpu.target,)), LARGEST, "command")
    runner = TensorRtRtx(half_bundle, tmp_path / "engines")
    check_runner(runner, half_bundle)
    inputs, expected = windows(half_bundle, 5)
    right(runner.run(inputs), expected)
    runner.close()
