"""Quantises the weights of matrix products to 8 or 4 bits with ONNX Runtime's own tool."""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from graphs import save

BITS = {"int8": 8, "int4": 4}
BLOCK = 32
# The tool logs a line for every node.
logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)


def quantize(path: Path, weights: str, external_data: bool) -> int:
    """Replaces every MatMul of the graph at `path` whose weight is constant by MatMulNBits, and returns their number.

    Each block of 32 weights of an output channel has one scale and no zero point. Activations keep their type.
    Convolutions and embeddings are not quantised.
    """
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=BITS[weights])
    quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
    quantizer.process()
    model = quantizer.model.model
    save(model, path, external_data)
    return sum(node.op_type == "MatMulNBits" for node in model.graph.node)
