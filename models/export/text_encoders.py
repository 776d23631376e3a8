"""Text encoders: CLIP, T5, and the language models Gemma 2 and Qwen3.

Every encoder gets its attention mask as a sum of scores, since the mask helpers of transformers do not trace.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModel, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from graphs import Graph, Options

# Layers that are left out are unexpected weights to transformers, which it lists.
transformers.logging.set_verbosity_error()
HALF_MAX = 65504.0
BATCH_TEXT = {0: "batch_size", 1: "sequence_length"}


def masked_scores(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns 0 where `allowed` and the lowest number elsewhere, as transformers' eager attention adds it."""
    return torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype)


def causal(length: torch.Tensor | int, device: torch.device) -> torch.Tensor:
    """Returns [1, 1, length, length]: whether a row may attend to a column."""
    places = torch.arange(length, device=device)
    return (places[None, :] <= places[:, None])[None, None]


class LanguageModel(torch.nn.Module):
    """A decoder-only language model whose hidden states are the text embeddings.

    `layers` lists the layers, counted from 1, whose outputs are concatenated per token, without the final norm.
    Without it the output is the last layer's after the final norm. In half precision the residual stream stays
    float32: it exceeds half precision's range in these models, and no weight grows by it.
    """

    def __init__(self, model: torch.nn.Module, layers: list[int] | None):
        super().__init__()
        self.model = model
        self.kept = []
        self.half = model.dtype == torch.float16
        if layers is not None:
            model.norm = torch.nn.Identity()
            for layer in layers:
                model.layers[layer - 1].register_forward_hook(lambda _, __, output: self.kept.append(output))
        if self.half:
            model.embed_tokens.register_forward_hook(lambda _, __, output: output.float())
            for layer in model.layers:
                layer.self_attn.register_forward_pre_hook(self.attention_in_half, with_kwargs=True)
                layer.mlp.register_forward_pre_hook(lambda _, given: (given[0].half(),))

    @staticmethod
    def attention_in_half(_, given, named):
        cos, sin = named["position_embeddings"]
        return given, {**named, "hidden_states": named["hidden_states"].half(),
                       "position_embeddings": (cos.half(), sin.half())}

    def forward(self, input_ids, attention_mask):
        self.kept.clear()
        dtype = torch.float32 if self.half else self.model.dtype
        allowed = causal(input_ids.shape[1], input_ids.device) & (attention_mask[:, None, None, :] > 0)
        scores = masked_scores(allowed, dtype)
        last = self.model(input_ids=input_ids, attention_mask={"full_attention": scores, "sliding_attention": scores},
                          use_cache=False).last_hidden_state
        rows = torch.cat(self.kept, dim=-1) if self.kept else last
        return rows.clamp(-HALF_MAX, HALF_MAX).half() if self.half else rows


class T5(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        scores = masked_scores(attention_mask[:, None, None, :] > 0, self.model.dtype)
        return self.model(input_ids=input_ids, attention_mask=scores).last_hidden_state


class Clip(torch.nn.Module):
    """Returns the last hidden state, the pooled row (projected, if the model projects it) and all hidden states."""

    def __init__(self, model, projected: bool, hidden_states: bool):
        super().__init__()
        self.model, self.projected, self.hidden_states = model, projected, hidden_states
        self.kept = []
        layers = getattr(model, "text_model", model).encoder.layers
        layers[0].register_forward_pre_hook(lambda _, given: self.kept.append(given[0]))
        for layer in layers:
            layer.register_forward_hook(
                lambda _, __, output: self.kept.append(output[0] if isinstance(output, tuple) else output))

    def forward(self, input_ids):
        self.kept.clear()
        scores = masked_scores(causal(input_ids.shape[1], input_ids.device), self.model.dtype)
        scores = scores.expand(input_ids.shape[0], -1, -1, -1)
        output = self.model(input_ids=input_ids, attention_mask=scores)
        first = (output.text_embeds, output.last_hidden_state) if self.projected else (
            output.last_hidden_state, output.pooler_output)
        return (*first, *self.kept) if self.hidden_states else first


def ids(options: Options, length: int) -> torch.Tensor:
    return torch.ones(options.batch or 2, options.text_length or length, dtype=torch.int64)


def language_model(model: Path, options: Options, layers=None, length: int = 300) -> Graph:
    """`layers` is a function of the number of layers, or None for the last layer's normed output."""
    config = AutoConfig.from_pretrained(model / "text_encoder", local_files_only=True)
    layers = layers and layers(config.num_hidden_layers)
    if layers and max(layers) > config.num_hidden_layers:
        raise SystemExit(f"{model}/text_encoder/config.json: num_hidden_layers is {config.num_hidden_layers}, but the "
                         f"pipeline reads layer {max(layers)}")
    if layers:
        config.num_hidden_layers = max(layers)
        config.layer_types = config.layer_types[:max(layers)]
    network = AutoModel.from_pretrained(model / "text_encoder", config=config, dtype=options.dtype,
                                        attn_implementation="eager", local_files_only=True)
    example = ids(options, length)
    output = "prompt_embeds" if layers else "last_hidden_state"
    # The mask of the example hides padding, so that nothing about it is folded into the graph.
    mask = example.clone()
    mask[:, example.shape[1] // 2:] = 0
    written = json.loads((model / "text_encoder" / "config.json").read_text())
    return Graph("text_encoder", LanguageModel(network, layers), {"input_ids": example, "attention_mask": mask}, [output],
                 {"input_ids": BATCH_TEXT, "attention_mask": BATCH_TEXT, output: BATCH_TEXT},
                 written | ({"num_hidden_layers": max(layers), "layer_types": config.layer_types} if layers else {}))


def t5(model: Path, options: Options, folder: str = "text_encoder", length: int = 300) -> Graph:
    """In half precision, transformers keeps `wo` as float32, whose products exceed half precision's range."""
    network = T5EncoderModel.from_pretrained(
        model / folder, dtype=options.dtype, attn_implementation="eager", local_files_only=True)
    example = ids(options, length)
    mask = example.clone()
    mask[:, example.shape[1] // 2:] = 0
    return Graph(folder, T5(network), {"input_ids": example, "attention_mask": mask}, ["last_hidden_state"],
                 {"input_ids": BATCH_TEXT, "attention_mask": BATCH_TEXT, "last_hidden_state": BATCH_TEXT})


def clip(model: Path, options: Options, folder: str = "text_encoder", hidden_states: bool = False) -> Graph:
    config = json.loads((model / folder / "config.json").read_text())
    projected = "CLIPTextModelWithProjection" in config["architectures"]
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    network = kind.from_pretrained(
        model / folder, dtype=options.dtype, attn_implementation="eager", local_files_only=True)
    outputs = ["text_embeds", "last_hidden_state"] if projected else ["last_hidden_state", "pooler_output"]
    if hidden_states:
        outputs += [f"hidden_states.{layer}" for layer in range(config["num_hidden_layers"] + 1)]
    example = torch.ones(options.batch or 2, config["max_position_embeddings"], dtype=torch.int64)
    axes = {name: {0: "batch_size"} if name in ("text_embeds", "pooler_output") else BATCH_TEXT
            for name in ["input_ids", *outputs]}
    return Graph(folder, Clip(network, projected, hidden_states), {"input_ids": example}, outputs, axes)
