"""The CNN's FP16 graph to TensorRT: a plan for this machine's GPU, or TensorRT-RTX engines ahead of time."""
