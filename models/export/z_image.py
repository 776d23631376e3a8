"""Z-Image and Z-Image-Turbo: a transformer over one sequence of picture and text tokens."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF

import autoencoders
import text_encoders
from graphs import Graph, Options
from replacements import RotaryTable, attention, rotate

HALF_MAX = 65504.0


class RealAttention:
    """Z-Image's attention with the factors of RotaryTable instead of complex numbers."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, freqs_cis=None):
        query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1))
                             for layer in (attn.to_q, attn.to_k, attn.to_v))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        return attn.to_out[0](attention(rotate(query, freqs_cis), rotate(key, freqs_cis), value))


def clamped_gate(x1, x3):
    return (torch.nn.functional.silu(x1) * x3).clamp(-HALF_MAX, HALF_MAX)


class Network(torch.nn.Module):
    """ZImageTransformer2DModel.forward for one picture [1, C, h, w], without lists and complex numbers.

    Text and picture tokens are padded to a multiple of 32 inside the graph, with the model's pad tokens. In half
    precision the residual stream stays float32.
    """

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer
        config = transformer.config
        self.patch = config.all_patch_size[0]
        self.key = f"{self.patch}-{config.all_f_patch_size[0]}"
        for module in transformer.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(RealAttention())
            if transformer.dtype == torch.float16 and hasattr(module, "_forward_silu_gating"):
                module._forward_silu_gating = clamped_gate
        # Axis 0 counts text rows, the others rows and columns of patches. diffusers rounds the angles to float32.
        self.rotary = RotaryTable(config.rope_theta, config.axes_dims, config.axes_lens, torch.float32)

    @staticmethod
    def padded(rows, pad_token, total):
        """Returns `rows` [S, C] with pad tokens up to `total` rows."""
        return torch.cat([rows, pad_token.expand(total - rows.shape[0], -1)], dim=0)

    @staticmethod
    def padded_places(places, total):
        return torch.cat([places, torch.zeros(total - places.shape[0], dtype=torch.int64)])

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        net, p = self.transformer, self.patch
        _, channels, height, width = hidden_states.shape
        rows, columns = height // p, width // p
        tokens, text_rows = rows * columns, encoder_hidden_states.shape[1]
        text_total = (text_rows + SEQ_MULTI_OF - 1) // SEQ_MULTI_OF * SEQ_MULTI_OF
        total = (tokens + SEQ_MULTI_OF - 1) // SEQ_MULTI_OF * SEQ_MULTI_OF

        time = net.t_embedder(timestep * net.t_scale).to(hidden_states.dtype)
        patches = hidden_states[0].reshape(channels, rows, p, columns, p).permute(1, 3, 2, 4, 0)
        x = net.all_x_embedder[self.key](patches.reshape(tokens, p * p * channels))
        x = self.padded(x, net.x_pad_token, total)[None].float()
        place = torch.arange(tokens)
        frame = self.padded_places((text_total + 1).expand(tokens) if torch.is_tensor(text_total)
                                   else torch.full([tokens], text_total + 1), total)
        x_rotary = self.rotary(torch.stack([frame, self.padded_places(place // columns, total),
                                            self.padded_places(place % columns, total)], dim=1))
        for layer in net.noise_refiner:
            x = layer(x, None, x_rotary, time)

        text = net.cap_embedder(encoder_hidden_states[0])
        text = self.padded(text, net.cap_pad_token, text_total)[None].float()
        text_places = torch.arange(1, text_total + 1)
        zeros = torch.zeros_like(text_places)
        text_rotary = self.rotary(torch.stack([text_places, zeros, zeros], dim=1))
        for layer in net.context_refiner:
            text = layer(text, None, text_rotary)

        x = torch.cat([x, text], dim=1)
        rotary = tuple(torch.cat(pair) for pair in zip(x_rotary, text_rotary))
        for layer in net.layers:
            x = layer(x, None, rotary, time)
        last = net.all_final_layer[self.key]
        x = last.norm_final(x[:, :tokens]) * (1 + last.adaLN_modulation(time))[:, None]
        x = last.linear(x.to(hidden_states.dtype))
        x = x.reshape(rows, columns, p, p, channels).permute(4, 0, 2, 1, 3)
        return x.reshape(1, channels, height, width)


def z_image(model: Path, options: Options) -> Iterator[Graph]:
    yield text_encoders.language_model(model, options, layers=lambda count: [count - 1], length=64)
    transformer = ZImageTransformer2DModel.from_pretrained(
        model / "transformer", torch_dtype=options.dtype, local_files_only=True)
    config, dtype = transformer.config, options.dtype
    patch = config.all_patch_size[0]
    height, width = options.latent_size(autoencoders.factor(autoencoders.read_config(model)) * patch)
    inputs = {
        "hidden_states": torch.randn(1, config.in_channels, height * patch, width * patch, dtype=dtype),
        "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, 37, config.cap_feat_dim, dtype=dtype),
    }
    image = {2: "height", 3: "width"}
    axes = {"hidden_states": image, "encoder_hidden_states": {1: "sequence_length"}, "sample": image}
    yield Graph("transformer", Network(transformer), inputs, ["sample"], axes)
    yield from autoencoders.graphs(model, options)
