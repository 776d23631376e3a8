"""Stable Diffusion 3 and Flux.1: transformers over text and picture tokens."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.models.transformers import transformer_flux

import autoencoders
import text_encoders
from graphs import Graph, Options, declares
from replacements import POSITIONS, RotaryTable, replace_rms_norms, replaced, rotate

OUTPUT = "out_hidden_states"
TEXT = {0: "batch_size", 1: "sequence_length"}
# Rows of CLIP before those of T5.
CLIP_ROWS = 77


class Network(torch.nn.Module):
    """Passes its inputs by name and returns the transformer's sample."""

    def __init__(self, transformer, names: list[str]):
        super().__init__()
        self.transformer, self.names = transformer, names

    def forward(self, *given):
        return self.transformer(**dict(zip(self.names, given)), return_dict=False)[0]


def stable_diffusion_3(model: Path, options: Options) -> Iterator[Graph]:
    for folder in ("text_encoder", "text_encoder_2"):
        yield text_encoders.clip(model, options, folder, hidden_states=True)
    if declares(model, "text_encoder_3"):
        yield text_encoders.t5(model, options, "text_encoder_3", length=256)
    transformer = SD3Transformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    replace_rms_norms(transformer)
    config, dtype, batch = transformer.config, options.dtype, options.batch or 2
    sides = autoencoders.factor(autoencoders.read_config(model)) * config.patch_size
    height, width = (side * config.patch_size for side in options.latent_size(sides))
    inputs = {
        "hidden_states": torch.randn(batch, config.in_channels, height, width, dtype=dtype),
        "encoder_hidden_states": torch.randn(batch, CLIP_ROWS + (options.text_length or 256), config.joint_attention_dim,
                                             dtype=dtype),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim, dtype=dtype),
        "timestep": torch.full([batch], 500.0),
    }
    image = {0: "batch_size", 2: "height", 3: "width"}
    axes = {"hidden_states": image, "encoder_hidden_states": TEXT, "pooled_projections": {0: "batch_size"},
            "timestep": {0: "batch_size"}, OUTPUT: image}
    yield Graph("transformer", Network(transformer, list(inputs)), inputs, [OUTPUT], axes)
    yield from autoencoders.graphs(model, options)


def flux(model: Path, options: Options) -> Iterator[Graph]:
    yield text_encoders.clip(model, options)
    yield text_encoders.t5(model, options, "text_encoder_2", length=512)
    transformer = FluxTransformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    replace_rms_norms(transformer)
    config, dtype, batch = transformer.config, options.dtype, options.batch or 2
    widths = config.axes_dims_rope
    transformer.pos_embed = RotaryTable(transformer.pos_embed.theta, widths, [POSITIONS] * len(widths))
    height, width = options.latent_size(autoencoders.factor(autoencoders.read_config(model)) * 2)
    rows = options.text_length or 512
    inputs = {
        "hidden_states": torch.randn(batch, height * width, config.in_channels, dtype=dtype),
        "encoder_hidden_states": torch.randn(batch, rows, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim, dtype=dtype),
        "timestep": torch.full([batch], 0.5),
        "img_ids": torch.cartesian_prod(
            torch.zeros(1, dtype=torch.int64), torch.arange(height), torch.arange(width)).float(),
        "txt_ids": torch.zeros(rows, 3),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.full([batch], 3.5)
    tokens = {0: "batch_size", 1: "image_tokens"}
    axes = {"hidden_states": tokens, "encoder_hidden_states": TEXT, "img_ids": {0: "image_tokens"},
            "txt_ids": {0: "sequence_length"}, OUTPUT: tokens}
    axes |= {name: {0: "batch_size"} for name in ("pooled_projections", "timestep", "guidance") if name in inputs}
    with replaced(transformer_flux, "apply_rotary_emb", rotate):
        yield Graph("transformer", Network(transformer, list(inputs)), inputs, [OUTPUT], axes)
    yield from autoencoders.graphs(model, options)
