"""Writes one module as one ONNX graph, with fixed or free axes."""

import gc
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data

from replacements import movedim, replaced

# Larger graphs keep their weights in a second file, which an engine can map into memory.
EXTERNAL_BYTES = 64 << 20
# Smaller weights stay in the graph. Larger ones begin at a page of memory.
EXTERNAL_TENSOR, ALIGNMENT = 1024, 4096
# Pixels by which each side grows when no size is given. The sides differ, so that a graph which mixes them up fails.
EXAMPLE_HEIGHT, EXAMPLE_WIDTH = 4, 6


@dataclass(frozen=True)
class Options:
    """What the command line sets for every graph. A size of None leaves its axis free."""

    dtype: torch.dtype = torch.float32
    opset: int = 17
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    text_length: int | None = None
    external_data: bool = False

    def latent_size(self, factor: int) -> tuple[int, int]:
        """Returns the example's latent height and width, for an autoencoder that divides sides by `factor`."""
        return ((self.height or EXAMPLE_HEIGHT * factor) // factor, (self.width or EXAMPLE_WIDTH * factor) // factor)

    def fixed(self) -> set[str]:
        """Returns the names of the axes that are not free."""
        names = set()
        if self.batch is not None:
            names.add("batch_size")
        if self.height is not None:
            names |= {"height", "latent_height", "image_height"}
        if self.width is not None:
            names |= {"width", "latent_width", "image_width"}
        if self.height is not None and self.width is not None:
            names.add("image_tokens")
        if self.text_length is not None:
            names.add("sequence_length")
        return names


@dataclass
class Graph:
    """A module with example inputs.

    `axes` names the free axes of inputs and outputs: `{"sample": {0: "batch_size"}}`.
    """

    folder: str
    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: list[str]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)
    config: dict = field(default_factory=dict)


def declares(model: Path, component: str) -> bool:
    """Whether model_index.json names a class for `component`, so that the pipeline has it."""
    return (json.loads((model / "model_index.json").read_text()).get(component) or [None])[0] is not None


def write(graph: Graph, folder: Path, options: Options) -> Path:
    """Exports `graph` to `folder/model.onnx` and returns that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    fixed = options.fixed()
    axes = {name: free for name, named in graph.axes.items()
            if (free := {axis: label for axis, label in named.items() if label not in fixed})}
    with torch.no_grad(), replaced(torch.Tensor, "movedim", movedim):
        torch.onnx.export(
            graph.module.eval(), tuple(graph.inputs.values()), str(path), input_names=list(graph.inputs),
            output_names=graph.outputs, dynamic_axes=axes, opset_version=options.opset, do_constant_folding=True,
            dynamo=False,
        )
    graph.module = None
    gc.collect()
    save(onnx.load(path, load_external_data=False), path, options.external_data)
    return path


def save(model: onnx.ModelProto, path: Path, external_data: bool) -> None:
    """Saves `model`; if it is large or `external_data` is set, its weights go to `model.onnx_data` beside it.

    torch.onnx.export writes one file for each weight of a graph over 2 GB. Those are copied, one at a time, and
    deleted.
    """
    weights = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= EXTERNAL_TENSOR]
    apart = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    large = sum(len(tensor.raw_data) for tensor in weights) >= EXTERNAL_BYTES
    target = path.with_name("model.onnx_data")
    if not (external_data or large or apart):
        target.unlink(missing_ok=True)
        onnx.save(model, path)
        return
    files, written = set(), path.with_name("model.onnx_data.new")
    with written.open("wb") as data:
        for tensor in weights + apart:
            data.write(b"\0" * (-data.tell() % ALIGNMENT))
            offset = data.tell()
            if tensor.raw_data:
                data.write(tensor.raw_data)
            else:
                info = ExternalDataInfo(tensor)
                files.add(path.with_name(info.location))
                with path.with_name(info.location).open("rb") as source:
                    source.seek(info.offset or 0)
                    shutil.copyfileobj(source, data, 1 << 24)
            tensor.raw_data = b"0"  # set_external_data wants a tensor that has data.
            set_external_data(tensor, target.name, offset, data.tell() - offset)
            tensor.ClearField("raw_data")
    for file in files:
        file.unlink(missing_ok=True)
    written.rename(target)
    onnx.save(model, path)
