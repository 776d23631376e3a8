"""Write the network with which `denoised doctor` tests an engine: 2·sample + timestep.

python tests/golden/tiny.py   writes src/cli/doctor/tiny.onnx
"""

import pathlib

import onnx
from onnx import TensorProto, helper

SHAPE = ["batch", 1, 2, 2]
graph = helper.make_graph(
    [
        helper.make_node("Constant", [], ["two"], value=helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])),
        helper.make_node(
            "Constant", [], ["axes"], value=helper.make_tensor("axes", TensorProto.INT64, [4], [-1, 1, 1, 1])
        ),
        helper.make_node("Mul", ["sample", "two"], ["twice"]),
        helper.make_node("Reshape", ["timestep", "axes"], ["time"]),
        helper.make_node("Add", ["twice", "time"], ["out_sample"]),
    ],
    "tiny",
    [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, SHAPE),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, ["batch"]),
    ],
    [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, SHAPE)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).parents[2] / "src/cli/doctor/tiny.onnx")
