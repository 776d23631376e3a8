"""Computes a pipeline with ControlNets by ONNX Runtime, to measure its difference from torch."""

from pathlib import Path

import torch

import unet as unet_export
from export import export
from graphs import Options, write
from onnx_pipeline import Session, attach


class Steered(unet_export.Network):
    """A U-Net with inputs for the residuals of ControlNets."""

    def forward(self, sample, timestep, encoder_hidden_states, *more):
        residuals, extra = more[len(self.extra):], dict(zip(self.extra, more))
        return self.unet(
            sample, timestep, encoder_hidden_states, added_cond_kwargs=extra,
            down_block_additional_residuals=residuals[:-1], mid_block_additional_residual=residuals[-1],
            return_dict=False)[0]


def root(models: Path) -> Path:
    return models.with_name(models.name + ".steered")


def folder_of(case, models: Path) -> Path:
    """The folder for a case's graphs, which all cases with the same LoRAs share."""
    loras = [f"{name}{weight}" for name, weight in case.loras]
    return root(models) / "-".join([case.folder, *loras])


def write_graphs(pipe, case, models: Path) -> None:
    """Writes the graphs of a pipeline whose LoRAs are merged, if another case did not."""
    folder = folder_of(case, models)
    if (folder / "onnx" / "unet" / "model.onnx").is_file():
        return
    plain = folder / "torch"
    pipe.save_pretrained(plain)
    index = (models / case.folder / "model_index.json").read_text()
    (plain / "model_index.json").write_text(index)
    export(plain, folder / "onnx", Options())
    graph = unet_export.network(plain, Options(), 77)
    config = graph.module.unet.config
    (_, _, height, width), channels = graph.inputs["sample"].shape, config.block_out_channels
    graph.module = Steered(graph.module.unet, graph.module.extra)
    # A residual of the first convolution, of each layer and each downsampler, and of the middle.
    shapes = [(channels[0], height, width)]
    for block, width_of_block in zip(graph.module.unet.down_blocks, channels):
        shapes += [(width_of_block, height, width)] * len(block.resnets)
        if block.downsamplers is not None:
            height, width = height // 2, width // 2
            shapes.append((width_of_block, height, width))
    for place, shape in enumerate([*shapes, (channels[-1], height, width)]):
        graph.inputs[f"residual_{place}"] = torch.randn(2, *shape)
        graph.axes[f"residual_{place}"] = {0: "batch_size", 2: f"height_{place}", 3: f"width_{place}"}
    write(graph, folder / "onnx" / "unet", Options())


def attach_graphs(pipe, case, models: Path, out: Path) -> None:
    """Replaces the computation of every component by its graph."""
    graphs = folder_of(case, models) / "onnx"
    attach(pipe, graphs)
    session = Session(graphs / "unet" / "model.onnx")
    channels = [port.shape[1] for port in session.session.get_inputs() if port.name.startswith("residual_")]

    def forward(sample, timestep, encoder_hidden_states, down_block_additional_residuals=None,
                mid_block_additional_residual=None, added_cond_kwargs=None, **_):
        if down_block_additional_residuals is None:
            values = [torch.zeros(len(sample), own, 1, 1) for own in channels]
        else:
            values = [*down_block_additional_residuals, mid_block_additional_residual]
        named = {f"residual_{place}": value for place, value in enumerate(values)}
        return (session.only(sample=sample, timestep=timestep, encoder_hidden_states=encoder_hidden_states, **named,
                             **(added_cond_kwargs or {})),)

    pipe.unet.forward = forward
    nets = getattr(pipe, "controlnet", None)
    for net, control in zip(getattr(nets, "nets", [nets]), case.controls):
        attach_controlnet(net, Session(out / case.folder / control.net / "model.onnx"))


def attach_controlnet(net, session: Session) -> None:
    count = len(session.session.get_outputs())

    def forward(sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale=1.0, guess_mode=False,
                added_cond_kwargs=None, **_):
        pools = net.config.global_pool_conditions
        factors = torch.logspace(-1, 0, count) if guess_mode and not pools else torch.ones(count)
        residuals = session(
            sample=sample, timestep=timestep.reshape(1).expand(len(sample)).float(),
            encoder_hidden_states=encoder_hidden_states, controlnet_cond=controlnet_cond,
            conditioning_scale=(factors * conditioning_scale).expand(len(sample), count), **(added_cond_kwargs or {}))
        *skips, middle = (value.mean((2, 3), keepdim=True) if pools else value for value in residuals.values())
        return skips, middle

    net.forward = forward
