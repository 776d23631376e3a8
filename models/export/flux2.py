"""FLUX.2 klein, distilled and base."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2

import autoencoders
import text_encoders
from graphs import Graph, Options
from mmdit import Network
from replacements import POSITIONS, RotaryTable, replace_rms_norms, replaced, rotate

# The pipeline's text_encoder_out_layers, counted from 1.
LAYERS = [9, 18, 27]
ROWS = 512


def klein(model: Path, options: Options) -> Iterator[Graph]:
    yield text_encoders.language_model(model, options, layers=lambda _: LAYERS, length=ROWS)
    transformer = Flux2Transformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    replace_rms_norms(transformer)
    config, dtype, batch = transformer.config, options.dtype, options.batch or 2
    widths = config.axes_dims_rope
    transformer.pos_embed = RotaryTable(config.rope_theta, widths, [POSITIONS] * len(widths))
    height, width = options.latent_size(autoencoders.factor(autoencoders.read_config(model)) * 2)
    rows = options.text_length or ROWS
    zero = torch.zeros(1, dtype=torch.int64)
    ids = torch.cartesian_prod(zero, torch.arange(height), torch.arange(width), zero)
    text_ids = torch.cartesian_prod(zero, zero, zero, torch.arange(rows))
    inputs = {
        "hidden_states": torch.randn(batch, height * width, config.in_channels, dtype=dtype),
        "encoder_hidden_states": torch.randn(batch, rows, config.joint_attention_dim, dtype=dtype),
        "timestep": torch.full([batch], 0.5),
        "img_ids": ids.expand(batch, -1, -1),
        "txt_ids": text_ids.expand(batch, -1, -1),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.full([batch], 4.0)
    # Reference pictures are further tokens behind those of the noise, so their number stays free at a fixed size too.
    tokens = {0: "batch_size", 1: "tokens"}
    text = {0: "batch_size", 1: "sequence_length"}
    axes = {"hidden_states": tokens, "encoder_hidden_states": text, "img_ids": tokens, "txt_ids": text,
            "timestep": {0: "batch_size"}, "sample": tokens}
    if config.guidance_embeds:
        axes["guidance"] = {0: "batch_size"}
    with replaced(transformer_flux2, "apply_rotary_emb", rotate):
        yield Graph("transformer", Network(transformer, list(inputs)), inputs, ["sample"], axes)
    yield from autoencoders.graphs(model, options)
