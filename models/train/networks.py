"""The networks of the three bundled models."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import nn

CLASSES = 10
NO_CLASS = 10  # the label for "no class", which guidance needs


def unet(**more) -> UNet2DModel:
    """A U-Net with 0.7 M parameters for 4×14×14, the size of a pixel-unshuffled digit."""
    return UNet2DModel(
        sample_size=14, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(32, 64), norm_num_groups=8, attention_head_dim=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **more,
    )


class Digits(nn.Module):
    """v_θ(x_t, t, class) for digits in −1..1."""

    def __init__(self):
        super().__init__()
        self.unet = unet(num_class_embeds=CLASSES + 1)

    def forward(self, sample, timestep, class_labels):
        x = F.pixel_unshuffle(sample, 2)
        return F.pixel_shuffle(self.unet(x, timestep, class_labels).sample, 2)


class NoiseConditionalScore(nn.Module):
    """s_θ(x, σ_i) for digits in 0..1, given the index i of the noise level.

    The input is scaled to about unit variance and the output is divided by σ, so the U-Net's inputs
    and outputs have the same magnitude at every noise level (Song & Ermon 2020, technique 3).
    """

    def __init__(self, sigmas: torch.Tensor):
        super().__init__()
        self.unet = unet()
        self.register_buffer("sigmas", sigmas)

    def forward(self, sample, noise_level):
        sigma = self.sigmas[noise_level][:, None, None, None]
        x = F.pixel_unshuffle((sample - 0.5) / (sigma**2 + 0.25).sqrt(), 2)
        # Cover the range of time steps that the sinusoidal embedding is made for.
        return F.pixel_shuffle(self.unet(x, noise_level * 100).sample, 2) / sigma


class Points(nn.Module):
    """ε_θ(x_t, t) for clouds of two-dimensional points [N, P, 2]: one MLP, applied to each point."""

    def __init__(self, width: int = 96, depth: int = 4):
        super().__init__()
        frequencies = torch.exp(torch.linspace(0, -8, width // 2))
        self.register_buffer("frequencies", frequencies)
        self.enter = nn.Linear(2, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(),
                          nn.Linear(2 * width, width)) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, sample, timestep):
        angle = timestep[:, None].float() * self.frequencies
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, None, :]
        x = self.enter(sample) + time
        for block in self.blocks:
            x = x + block(x + time)
        return self.leave(x)
