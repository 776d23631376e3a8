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
    """Rotary embedding of Flux by lookup.

    diffusers computes angles in float64, which few engines support, and fixes the number of tokens in the trace. The
    table holds their cosines and sines for every whole position, rounded once.
    """

    def __init__(self, theta: float, axes: list[int], positions: int = POSITIONS):
        super().__init__()
        self.axes = list(axes)
        for width in sorted(set(axes)):
            frequencies = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
            angles = angles.repeat_interleave(2, dim=1)
            self.register_buffer(f"cos_{width}", angles.cos().float(), persistent=False)
            self.register_buffer(f"sin_{width}", angles.sin().float(), persistent=False)

    def forward(self, ids):
        ids = ids.long()
        parts = {kind: torch.cat([getattr(self, f"{kind}_{width}")[ids[:, axis]]
                                  for axis, width in enumerate(self.axes)], dim=-1) for kind in ("cos", "sin")}
        return parts["cos"], parts["sin"]


def rotate_pairs(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring channels of x [B, S, heads, D] by angles [S, D/2], as a product of complex numbers."""
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    rotated = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def angle_table(theta: float, width: int, positions: int) -> torch.Tensor:
    """Returns Z-Image's angles [positions, width / 2], rounded to float32 as diffusers does."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(positions, dtype=torch.float64), frequencies).float()


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of [B, S, heads, D] without a mask; returns [B, S, heads × D]."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    scores = torch.matmul(query, key.transpose(-1, -2)) * (1 / math.sqrt(query.shape[-1]))
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


@contextmanager
def traceable_movedim():
    """Lets Tensor.movedim write a permutation of whole axes.

    The exporter computes it from the rank, and writes an invalid Transpose where shape inference has lost that.
    """
    original = torch.Tensor.movedim

    def movedim(tensor, source, destination):
        order = list(range(tensor.dim()))
        order.insert(destination % tensor.dim(), order.pop(source % tensor.dim()))
        return tensor.permute(order)

    torch.Tensor.movedim = movedim
    try:
        yield
    finally:
        torch.Tensor.movedim = original
