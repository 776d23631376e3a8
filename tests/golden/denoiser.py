"""Write the exact denoiser D(x; sigma) for Gaussian one-channel images with mean `difficulty` as an ONNX file.

For data N(difficulty, 0.25) the denoiser is (0.25 x + sigma^2 difficulty) / (0.25 + sigma^2). Needs onnx.
Run it as `python denoiser.py denoiser/network.onnx`.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

SHAPE = ["batch", 1, 128, 128]
column = nh.from_array(np.array([-1, 1, 1, 1], np.int64), "column")
variance = nh.from_array(np.array(0.25, np.float32), "variance")
nodes = [
    h.make_node("Reshape", ["sigma", "column"], ["s"]),
    h.make_node("Reshape", ["difficulty", "column"], ["d"]),
    h.make_node("Mul", ["s", "s"], ["square"]),
    h.make_node("Mul", ["variance", "noisy"], ["a"]),
    h.make_node("Mul", ["square", "d"], ["b"]),
    h.make_node("Add", ["a", "b"], ["sum"]),
    h.make_node("Add", ["variance", "square"], ["over"]),
    h.make_node("Div", ["sum", "over"], ["denoised"]),
]
value = h.make_tensor_value_info
inputs = [value("noisy", T.FLOAT, SHAPE), value("sigma", T.FLOAT, ["batch"]), value("difficulty", T.FLOAT, ["batch"])]
graph = h.make_graph(nodes, "denoiser", inputs, [value("denoised", T.FLOAT, SHAPE)], [column, variance])
onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), sys.argv[1])
