"""SANA, SANA-Sprint and PixArt-Sigma: transformers over picture tokens that attend to masked text rows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel, SanaTransformer2DModel

import autoencoders
import text_encoders
from graphs import Graph, Options
from mmdit import Network

TEXT = {0: "batch_size", 1: "sequence_length"}
IMAGE = {0: "batch_size", 2: "height", 3: "width"}
BATCH = {0: "batch_size"}
ROWS = 300


def sana(model: Path, options: Options) -> Iterator[Graph]:
    # The encoder takes an instruction before the prompt; --text-length fixes the rows that the network takes of it.
    encoder = text_encoders.language_model(model, replace(options, text_length=None), length=ROWS)
    encoder.axes = {name: {0: "batch_size", 1: "prompt_length"} for name in encoder.axes}
    yield encoder
    transformer = SanaTransformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    config, dtype, batch = transformer.config, options.dtype, options.batch or 2
    height, width = options.latent_size(autoencoders.factor(autoencoders.read_config(model)) * config.patch_size)
    rows = options.text_length or ROWS
    inputs = {
        "hidden_states": torch.randn(batch, config.in_channels, height * config.patch_size, width * config.patch_size,
                                     dtype=dtype),
        "encoder_hidden_states": torch.randn(batch, rows, config.caption_channels, dtype=dtype),
        "timestep": torch.full([batch], 0.5),
        "encoder_attention_mask": torch.ones(batch, rows, dtype=torch.int64),
    }
    if config.guidance_embeds:
        inputs["guidance"] = torch.full([batch], 0.45)
    axes = {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": BATCH, "encoder_attention_mask": TEXT,
            "guidance": BATCH, "out_hidden_states": IMAGE}
    yield Graph("transformer", Network(transformer, list(inputs)), inputs, ["out_hidden_states"],
                {name: axes[name] for name in axes if name in inputs or name == "out_hidden_states"})
    yield from autoencoders.graphs(model, options)


class PixArt(torch.nn.Module):
    """PixArt-Sigma takes no resolution and no aspect ratio. The output has the noise and the variance, as channels."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, hidden_states, encoder_hidden_states, timestep, encoder_attention_mask):
        return self.transformer(
            hidden_states, encoder_hidden_states, timestep, encoder_attention_mask=encoder_attention_mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None}, return_dict=False)[0]


def pixart_sigma(model: Path, options: Options) -> Iterator[Graph]:
    yield text_encoders.t5(model, options, length=ROWS)
    transformer = PixArtTransformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    config, dtype, batch = transformer.config, options.dtype, options.batch or 2
    if config.sample_size == 128 and config.use_additional_conditions:
        raise SystemExit(f"{model}/transformer/config.json: use_additional_conditions is set, which is PixArt-Alpha; "
                         "only PixArt-Sigma can be exported")
    patch = config.patch_size
    height, width = options.latent_size(autoencoders.factor(autoencoders.read_config(model)) * patch)
    if options.height is None and options.width is None and height * patch == width * patch == config.sample_size:
        # The trace of the default size would hold its position table.
        height += 1
    rows = options.text_length or ROWS
    inputs = {
        "hidden_states": torch.randn(batch, config.in_channels, height * patch, width * patch, dtype=dtype),
        "encoder_hidden_states": torch.randn(batch, rows, config.caption_channels, dtype=dtype),
        "timestep": torch.full([batch], 500, dtype=torch.int64),
        "encoder_attention_mask": torch.ones(batch, rows, dtype=torch.int64),
    }
    axes = {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": BATCH, "encoder_attention_mask": TEXT,
            "sample": IMAGE}
    yield Graph("transformer", PixArt(transformer), inputs, ["sample"], axes)
    yield from autoencoders.graphs(model, options)
