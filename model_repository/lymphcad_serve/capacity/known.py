"""Times that were measured once, with the command and the machine; for a server that is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lymphcad.bundle import Preprocess
from lymphcad_serve.capacity.service import Service


class Known(str, Enum):
    """What was measured.

    ``demo-cpu`` and ``resnet50-cpu``: the embedded server with two instances on two cores of an AMD EPYC, callers on
    the
    same cores; ``resnet50-h100``: the float16 network alone.
    """

    DEMO_CPU = "demo-cpu"
    RESNET50_CPU = "resnet50-cpu"
    RESNET50_H100 = "resnet50-h100"


@dataclass(frozen=True)
class Measured:
    """Times and where they come from.

    Attributes
    ----------
    service
        What a replica does.
    memory_mb
        Of a replica, MB; None if it was not measured.
    source
        A sentence: which machine, which command, what is not in it.
    preprocess
        Of the network, which decides what goes over the network; None if it is not known.
    """

    service: Service
    memory_mb: float | None
    source: str
    preprocess: Preprocess | None = None


_RESNET50 = Preprocess(field_of_view_mm=40.0, window_level_hu=60.0, window_width_hu=400.0, size=224)


MEASURED = {
    Known.DEMO_CPU: Measured(
        # 378 nodes/s when full, batches of two on two instances.
        Service(first_s=0.0, each_s=2 / 378, instances=2, preferred=(2,), most=16, overhead_s=0.001),
        410,
        "docs/results/batch.md (`python -m benchmarks.batch`): 378 nodes/s of bundles/demo, EfficientNet-Lite0,"
        " int8, 128 px, on 2 cores of an AMD EPYC with the caller on the same cores",
    ),
    Known.RESNET50_CPU: Measured(
        Service(first_s=0.0, each_s=2 / 80.5, instances=2, preferred=(2,), most=16, overhead_s=0.001),
        None,
        "docs/results/serving.md (`python -m benchmarks.serving`): 80.5 nodes/s of ResNet50, int8, 224 px, on 2"
        " cores of an AMD EPYC with the callers on the same cores",
        _RESNET50,
    ),
    Known.RESNET50_H100: Measured(
        # 692 crops/s in batches of 1, 3,257 in 8 and 7,456 in 64: a line through the first and the last.
        Service(first_s=0.001332, each_s=0.000113, preferred=(8, 16, 32, 64), most=64, delay_s=0.002),
        None,
        "docs/results/gpu.md (`python -m benchmarks.gpu`): ResNet50 in float16, 224 px, in ONNX Runtime on one H100;"
        " the network alone, without Triton, preprocessing, heatmap and copies; TensorRT, which is to run it, was"
        " not timed",
        _RESNET50,
    ),
}
