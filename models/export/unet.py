"""Stable Diffusion 1 and 2, SDXL, latent consistency models and their inpainting variants: a U-Net."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

import autoencoders
import text_encoders
from graphs import Graph, Options, declares

OUTPUT = "out_sample"
IMAGE = {0: "batch_size", 2: "height", 3: "width"}


class Network(torch.nn.Module):
    def __init__(self, unet, extra: list[str]):
        super().__init__()
        self.unet, self.extra = unet, extra

    def forward(self, sample, timestep, encoder_hidden_states, *more):
        named = dict(zip(self.extra, more))
        return self.unet(
            sample, timestep, encoder_hidden_states, timestep_cond=named.get("timestep_cond"),
            added_cond_kwargs={name: named[name] for name in ("text_embeds", "time_ids") if name in named},
            return_dict=False,
        )[0]


def network(model: Path, options: Options, text_length: int) -> Graph:
    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=options.dtype, local_files_only=True)
    config, dtype = unet.config, options.dtype
    sides = autoencoders.factor(autoencoders.read_config(model))
    # Both sides are halved at every level but the last.
    halvings = 2 ** (len(config.block_out_channels) - 1)
    height, width = options.latent_size(sides)
    if options.height is None:
        height *= halvings
    if options.width is None:
        width *= halvings
    batch = options.batch or 2
    inputs = {
        "sample": torch.randn(batch, config.in_channels, height, width, dtype=dtype),
        "timestep": torch.tensor(500.0),
        "encoder_hidden_states": torch.randn(batch, text_length, config.cross_attention_dim, dtype=dtype),
    }
    axes = {"sample": IMAGE, "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"}, OUTPUT: IMAGE}
    extra = {}
    if config.time_cond_proj_dim:
        extra["timestep_cond"] = torch.randn(batch, config.time_cond_proj_dim, dtype=dtype)
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        extra["text_embeds"] = torch.randn(batch, pooled, dtype=dtype)
        extra["time_ids"] = torch.ones(batch, 6, dtype=dtype)
    for name in extra:
        axes[name] = {0: "batch_size"}
    return Graph("unet", Network(unet, list(extra)), inputs | extra, [OUTPUT], axes)


def stable_diffusion(model: Path, options: Options) -> Iterator[Graph]:
    yield text_encoders.clip(model, options)
    yield network(model, options, options.text_length or 77)
    yield from autoencoders.graphs(model, options)


def stable_diffusion_xl(model: Path, options: Options) -> Iterator[Graph]:
    for folder in ("text_encoder", "text_encoder_2"):
        if folder == "text_encoder_2" or declares(model, folder):
            yield text_encoders.clip(model, options, folder, hidden_states=True)
    yield network(model, options, options.text_length or 77)
    yield from autoencoders.graphs(model, options)
