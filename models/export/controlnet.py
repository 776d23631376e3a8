"""ControlNets of Stable Diffusion 1 and 2 and of SDXL: graphs of their own, which steer the U-Net of any fine-tune."""

import json
from pathlib import Path

import torch
from diffusers import ControlNetModel

from graphs import Graph, Options

LATENT = {0: "batch_size", 2: "height", 3: "width"}
PICTURE = {0: "batch_size", 2: "image_height", 3: "image_width"}
BATCH = {0: "batch_size"}


class Network(torch.nn.Module):
    """Returns the residuals of the skip connections and of the middle, each multiplied by its scale.

    `conditioning_scale` is [batch, residuals], so that rows of one batch differ in it, and guess mode needs no graph
    of its own.
    """

    def __init__(self, net, extra: list[str]):
        super().__init__()
        self.net, self.extra = net, extra

    def forward(self, sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, *more):
        skips, middle = self.net(
            sample, timestep, encoder_hidden_states, controlnet_cond, added_cond_kwargs=dict(zip(self.extra, more)),
            return_dict=False)
        return tuple(residual * conditioning_scale[:, place, None, None, None]
                     for place, residual in enumerate([*skips, middle]))


def config(folder: Path) -> dict | None:
    """Returns the configuration of the network that lies in the folder itself, as a ControlNet's does."""
    file = folder / "config.json"
    is_pipeline = (folder / "model_index.json").is_file()
    return json.loads(file.read_text()) if file.is_file() and not is_pipeline else None


def factor(settings: dict) -> int:
    """Returns the number of pixels per latent and side."""
    return 2 ** (len(settings["conditioning_embedding_out_channels"]) - 1)


def residuals(net) -> list[str]:
    """Returns the names that a U-Net gives its inputs: for its first convolution, each layer and downsampler, the middle."""
    count = 1 + sum(len(block.resnets) + (block.downsamplers is not None) for block in net.down_blocks)
    return [*(f"down_block_additional_residuals_{place}" for place in range(count)), "mid_block_additional_residual"]


def graph(folder: Path, name: str, settings: dict, options: Options) -> Graph:
    net = ControlNetModel.from_pretrained(folder, torch_dtype=options.dtype, local_files_only=True)
    dtype, batch, sides = options.dtype, options.batch or 2, factor(settings)
    # Both sides are halved at every level but the last.
    halvings = 2 ** (len(net.config.block_out_channels) - 1)
    height, width = options.latent_size(sides)
    height *= 1 if options.height else halvings
    width *= 1 if options.width else halvings
    outputs = residuals(net)
    inputs = {
        "sample": torch.randn(batch, net.config.in_channels, height, width, dtype=dtype),
        # Float32 also in half precision: jobs of one batch are at different steps, and some schedulers' are not integers.
        "timestep": torch.full([batch], 500.0),
        "encoder_hidden_states": torch.randn(batch, options.text_length or 77, net.config.cross_attention_dim,
                                             dtype=dtype),
        "controlnet_cond": torch.rand(batch, net.config.conditioning_channels, height * sides, width * sides,
                                      dtype=dtype),
        "conditioning_scale": torch.ones(batch, len(outputs), dtype=dtype),
    }
    axes = {"sample": LATENT, "timestep": BATCH, "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
            "controlnet_cond": PICTURE, "conditioning_scale": BATCH}
    for place, output in enumerate(outputs):
        axes[output] = BATCH | (
            {} if options.height else {2: f"height_{place}"}) | ({} if options.width else {3: f"width_{place}"})
    extra = {}
    if net.config.addition_embed_type == "text_time":
        pooled = net.config.projection_class_embeddings_input_dim - 6 * net.config.addition_time_embed_dim
        extra = {"text_embeds": torch.randn(batch, pooled, dtype=dtype), "time_ids": torch.ones(batch, 6, dtype=dtype)}
        axes |= {name: BATCH for name in extra}
    return Graph(name, Network(net, list(extra)), inputs | extra, outputs, axes, settings)
