"""Modules that replace what the ONNX exporter of torch 2.8 can't write, or writes for one size only."""

import math
from contextlib import contextmanager

import torch

# Positions up to this number have a row in the rotary table: 1024 is a side of 16384 pixels, and twice FLUX.2's text.
POSITIONS = 1024


class RmsNorm(torch.nn.Module):
    """torch.nn.RMSNorm in elementary operators; it has none of its own before opset 23."""

    def __init__(self, norm: torch.nn.RMSNorm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide if self.weight is None else wide * self.weight.float()).to(x.dtype)


def replace_rms_norms(module: torch.nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.RMSNorm):
                setattr(parent, name, RmsNorm(child))


class RotaryTable(torch.nn.Module):
    """Rotary factors of whole positions by lookup: ids [S, axes] to cosines and sines [S, D].

    Flux computes angles in float64, which few engines support, and Z-Image multiplies complex numbers. `sin` is negated
    at even channels, as `rotate` uses it.
    """

    def __init__(self, theta: float, widths: list[int], positions: list[int], angles: torch.dtype = torch.float64):
        super().__init__()
        self.axes = len(widths)
        for axis, (width, count) in enumerate(zip(widths, positions)):
            frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
            table = torch.outer(torch.arange(count, dtype=torch.float64), frequencies).to(angles)
            table = table.repeat_interleave(2, dim=1)
            sign = torch.tensor([-1.0, 1.0]).repeat(width // 2)
            self.register_buffer(f"cos_{axis}", table.cos().float(), persistent=False)
            self.register_buffer(f"sin_{axis}", table.sin().float() * sign, persistent=False)

    def forward(self, ids):
        ids = ids.long()
        return tuple(torch.cat([getattr(self, f"{kind}_{axis}")[ids[:, axis]] for axis in range(self.axes)], dim=-1)
                     for kind in ("cos", "sin"))


def rotate(x: torch.Tensor, factors: tuple[torch.Tensor, torch.Tensor], **_) -> torch.Tensor:
    """Rotates neighbouring channels of x [B, S, heads, D] by the factors of RotaryTable.

    It takes the place of diffusers' apply_rotary_emb, which writes the number of tokens into the graph.
    """
    cos, sin = (factor[None, :, None, :] for factor in factors)
    swapped = torch.arange(x.shape[-1]).reshape(-1, 2).flip(1).reshape(-1)
    wide = x.float()
    return (wide * cos + wide.index_select(-1, swapped) * sin).to(x.dtype)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of [B, S, heads, D] without a mask; returns [B, S, heads × D]."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    scores = torch.matmul(query, key.transpose(-1, -2)) * (1 / math.sqrt(query.shape[-1]))
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


@contextmanager
def replaced(owner, name: str, function):
    """Sets an attribute of a module or class for the time of an export."""
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


def movedim(tensor: torch.Tensor, source: int, destination: int) -> torch.Tensor:
    """Takes the place of Tensor.movedim, for which the exporter writes an invalid Transpose where it has lost the rank."""
    order = list(range(tensor.dim()))
    order.insert(destination % tensor.dim(), order.pop(source % tensor.dim()))
    return tensor.permute(order)
