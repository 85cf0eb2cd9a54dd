"""The bare client: ready-made tensors, as many requests in flight as the order says, and nothing else.

``python -m benchmarks.bare ADDRESS BUNDLE TABLE`` takes one order a line, runs it, and answers with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import secrets
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lymphcad.bundle import Bundle
from lymphcad.dicom import read_slice
from lymphcad.geometry import cut_window
from lymphcad.tables import read_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lymphcad.geometry import Window

MOST_IN_FLIGHT = 16
_LEAD_S = 0.3
_PAGE = 4096
_SHARED_MEMORY = Path("/dev/shm")


class Bare:
    """Calls Triton with nothing between the generated stub of its protocol and the network's tensors.

    Parameters
    ----------
    address
        ``host:port`` of gRPC.
    bundle
        What is served.
    table
        The nodes whose windows are cut, once, before anything is measured.
    """

    def __init__(self, address: str, bundle: Bundle, table: Path) -> None:
        self._address, self._size = address, bundle.manifest.preprocess.size
        preprocess = bundle.manifest.preprocess
        self._windows: list[Window] = []
        for node in read_nodes(table):
            assert node.row is not None
            assert node.col is not None
            ct = read_slice(table.parent / node.image)
            self._windows.append(cut_window(ct, node.row, node.col, preprocess.field_of_view_mm, preprocess.size))
        # For as long as the server runs: it holds a region for a moment longer than it takes to answer.
        self._region = _Region(self._windows, MOST_IN_FLIGHT, self._size)
        self._region.register(address)

    def rates(self, order: dict[str, Any]) -> dict[str, Any]:
        """Drive the server.

        Parameters
        ----------
        order
            ``in_flight``, ``shared`` (whether the tensors lie in system shared memory) and ``seconds``.

        Returns
        -------
        dict
            ``rate``, answers a second; ``images``, all answers, those of the lead and the tail too; ``probabilities``
            of the nodes that were answered, by their number in the table, from 0.
        """
        return asyncio.run(self._drive(order["in_flight"], order["seconds"], shared=order["shared"]))

    async def _drive(self, in_flight: int, seconds: float, *, shared: bool) -> dict[str, Any]:
        ended: list[float] = []
        found: dict[int, float] = {}
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            region = self._region if shared else None
            slots = range(min(in_flight, len(self._windows)))
            requests = [
                [(node, self._request(node, region, slot)) for node in range(slot, len(self._windows), in_flight)]
                for slot in slots
            ]
            start = time.perf_counter() + _LEAD_S

            async def call(share: Iterator[tuple[int, Any]]) -> None:
                for node, request in share:
                    answer = await stub.ModelInfer(request)
                    ended.append(now := time.perf_counter())
                    if now >= start + seconds:
                        return
                    if node not in found:
                        at = [output.name for output in answer.outputs].index("PROBABILITY")
                        found[node] = float(np.frombuffer(answer.raw_output_contents[at], np.float32)[0])

            await asyncio.gather(*(call(cycle(share)) for share in requests))
        counted = sum(start <= at < start + seconds for at in ended)
        return {"rate": counted / seconds, "images": len(ended), "probabilities": found}

    def _request(self, node: int, region: _Region | None, slot: int) -> Any:
        window = self._windows[node]
        request = messages.ModelInferRequest(model_name="lymph_node")
        image = request.inputs.add(name="IMAGE", datatype="INT16", shape=(1, *window.image.shape))
        request.inputs.add(name="SPACING_MM", datatype="FP32", shape=(1, 2))
        request.inputs.add(name="CENTER", datatype="FP32", shape=(1, 2))
        request.outputs.add(name="PROBABILITY")
        heatmap = request.outputs.add(name="HEATMAP")
        if region is None:
            request.raw_input_contents.append(window.image.tobytes())
        else:
            region.share(image, region.images[node], window.image.nbytes)
            region.share(heatmap, region.heatmaps[slot], self._size**2)
        request.raw_input_contents.append(np.array(window.spacing_mm, np.float32).tobytes())
        request.raw_input_contents.append(np.array(window.center, np.float32).tobytes())
        return request


class _Region:
    """One region of system shared memory: every node's window, and a heatmap for each request in flight."""

    def __init__(self, windows: list[Window], in_flight: int, size: int) -> None:
        self.name = f"lymphcad-bare-{secrets.token_hex(8)}"
        lengths = [window.image.nbytes for window in windows] + [size**2] * in_flight
        ends = np.cumsum([_PAGE * -(-length // _PAGE) for length in lengths]).tolist()
        offsets = [0, *ends[:-1]]
        self.images, self.heatmaps, self._length = offsets[: len(windows)], offsets[len(windows) :], ends[-1]
        self._path = _SHARED_MEMORY / self.name
        file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(file, 0, self._length)
            with mmap.mmap(file, self._length) as memory:
                for window, offset in zip(windows, self.images, strict=True):
                    memory[offset : offset + window.image.nbytes] = window.image.tobytes()
        finally:
            os.close(file)

    def register(self, address: str) -> None:
        request = messages.SystemSharedMemoryRegisterRequest(
            name=self.name, key=f"/{self.name}", byte_size=self._length
        )
        try:
            with grpc.insecure_channel(address) as channel:
                GRPCInferenceServiceStub(channel).SystemSharedMemoryRegister(request)
        finally:
            self._path.unlink()  # the server has mapped it; nothing is left behind however this process ends

    def share(self, tensor: Any, offset: int, length: int) -> None:
        tensor.parameters["shared_memory_region"].string_param = self.name
        tensor.parameters["shared_memory_byte_size"].int64_param = length
        tensor.parameters["shared_memory_offset"].int64_param = offset


def main() -> None:
    bare = Bare(sys.argv[1], Bundle(Path(sys.argv[2])), Path(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(bare.rates(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
