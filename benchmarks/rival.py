"""FastAPI on uvicorn over the same engine: what a team writes that does not take Triton.

Its best layout of those tried on two cores: one process, whose event loop hands requests to as many threads as there
are engines; engines let go of Python's lock while they compute. (Two uvicorn workers share a port's connections
unevenly, and one engine of two threads is slower than two of one.) The body is the window's bytes, not JSON.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

from benchmarks.window import ENGINES, GRAPHS, engine
from lymphcad.bundle import Bundle

if TYPE_CHECKING:
    import numpy.typing as npt


def make_app(bundle: Bundle, precision: str) -> FastAPI:
    """Return the server's application."""
    engines: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(ENGINES):
        engines.put(engine(bundle, GRAPHS, precision))
    pool = ThreadPoolExecutor(ENGINES)
    app = FastAPI()

    def run(image: npt.NDArray[np.int16], spacing_mm: tuple[float, float], center: tuple[float, float]) -> bytes:
        tensors = {
            "IMAGE": image,
            "SPACING_MM": np.array([spacing_mm], np.float32),
            "CENTER": np.array([center], np.float32),
        }
        free = engines.get()
        try:
            free.run(tensors)
        finally:
            engines.put(free)
        if not np.isfinite(tensors["PROBABILITY"]).all():
            raise HTTPException(422, "the probability is not finite")
        return tensors["PROBABILITY"].tobytes() + tensors["HEATMAP"].tobytes()

    @app.post("/score")
    async def score(
        request: Request, rows: int, columns: int, row_mm: float, column_mm: float, row: float, column: float
    ) -> Response:
        body = await request.body()
        if len(body) != 2 * rows * columns:
            raise HTTPException(422, "the body has not two bytes a pixel")
        image = np.frombuffer(body, np.int16).reshape(1, rows, columns)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(pool, run, image, (row_mm, column_mm), (row, column))
        return Response(answer, media_type="application/octet-stream")

    @app.get("/ready")
    async def ready() -> Response:
        return Response()

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(Bundle(Path(sys.argv[1])), sys.argv[2]), host="127.0.0.1", port=int(sys.argv[3]), log_level="error",
        access_log=False,
    )  # fmt: skip
