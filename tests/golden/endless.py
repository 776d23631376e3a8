"""Write a network that never returns, unless its input is all zeros. It simulates a stuck evaluation.

python tests/golden/endless.py   writes tests/golden/endless/
"""

import pathlib
import shutil

import onnx
from onnx import TensorProto, helper

here = pathlib.Path(__file__).parent
SHAPE = ["batch", 1, 4, 5]


def constant(name, kind, value):
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, [], [value]))


body = helper.make_graph(
    [
        helper.make_node("Identity", ["go_on_in"], ["go_on_out"]),
        helper.make_node("Add", ["count_in", "one"], ["count_out"]),
    ],
    "body",
    [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go_on_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("count_in", TensorProto.FLOAT, []),
    ],
    [
        helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("count_out", TensorProto.FLOAT, []),
    ],
)
graph = helper.make_graph(
    [
        constant("one", TensorProto.FLOAT, 1.0),
        constant("zero", TensorProto.FLOAT, 0.0),
        constant("yes", TensorProto.BOOL, True),
        constant("many", TensorProto.FLOAT, 1e15),
        helper.make_node("Abs", ["sample"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "many"], ["turns_as_float"]),
        helper.make_node("Cast", ["turns_as_float"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "yes", "zero"], ["count"], body=body),
        helper.make_node("Mul", ["count", "zero"], ["nothing"]),
        helper.make_node("Add", ["sample", "nothing"], ["out_sample"]),
        helper.make_node("Identity", ["timestep"], ["timestep_again"]),
    ],
    "endless",
    [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, SHAPE),
        helper.make_tensor_value_info("timestep", TensorProto.INT64, ["batch"]),
    ],
    [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, SHAPE)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
target = here / "endless"
(target / "unet").mkdir(parents=True, exist_ok=True)
onnx.save(model, target / "unet" / "model.onnx")
shutil.copytree(here / "gaussian" / "scheduler", target / "scheduler", dirs_exist_ok=True)
