"""Decoders and encoders of the autoencoders: AutoencoderKL, AutoencoderDC and AutoencoderKLFlux2."""

import json
from collections.abc import Iterator
from pathlib import Path

import diffusers
import torch

from graphs import Graph, Options

IMAGE = {0: "batch_size", 2: "image_height", 3: "image_width"}
LATENT = {0: "batch_size", 2: "latent_height", 3: "latent_width"}


class Decoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


class Moments(torch.nn.Module):
    """Returns the mean and the logarithm of the variance of the posterior, as channels."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.encode(sample).latent_dist.parameters


class Latents(torch.nn.Module):
    """The encoder of AutoencoderDC, which has no posterior."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.encode(sample, return_dict=False)[0]


class Flux2Decoder(torch.nn.Module):
    """Takes the patches of the transformer [B, 4 C, h, w]: undoes the batch norm, unpatchifies and decodes."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        mean, deviation = batch_norm(self.vae)
        return self.vae.decode(unpatchify(latent_sample * deviation + mean), return_dict=False)[0]


class Flux2Encoder(torch.nn.Module):
    """Returns the posterior's mean as the transformer takes it: patchified and normalised."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        mean, deviation = batch_norm(self.vae)
        return (patchify(self.vae.encode(sample).latent_dist.mean) - mean) / deviation


def patchify(x: torch.Tensor) -> torch.Tensor:
    """[B, C, 2 h, 2 w] to [B, 4 C, h, w]; the place within the 2×2 patch varies fastest."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, channels * 4, height // 2, width // 2)


def unpatchify(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, channels // 4, height * 2, width * 2)


def batch_norm(vae) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and standard deviation of the latent patches, which only the weights contain."""
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return mean, deviation


def factor(config: dict) -> int:
    """Returns the number of pixels per latent and side."""
    if config["_class_name"] == "AutoencoderDC":
        return 2 ** (len(config["encoder_block_out_channels"]) - 1)
    return 2 ** (len(config["block_out_channels"]) - 1)


def read_config(model: Path) -> dict:
    return json.loads((model / "vae" / "config.json").read_text())


def graphs(model: Path, options: Options) -> Iterator[Graph]:
    """Returns `vae_decoder` and `vae_encoder`."""
    config = read_config(model)
    kind = config["_class_name"]
    # AutoencoderDC, and SDXL's autoencoder by its own statement, exceed half precision's range.
    whole = kind == "AutoencoderDC" or config.get("force_upcast", False) and config.get("scaling_factor") == 0.13025
    dtype = torch.float32 if whole else options.dtype
    vae = getattr(diffusers, kind).from_pretrained(
        model / "vae", torch_dtype=dtype, local_files_only=True).eval()
    channels, sides = config["latent_channels"], factor(config)
    decoder, encoder, parameters = Decoder(vae), Moments(vae), "latent_parameters"
    if kind == "AutoencoderKLFlux2":
        decoder, encoder, parameters = Flux2Decoder(vae), Flux2Encoder(vae), "latent_sample"
        channels, sides = channels * 4, sides * 2
    elif kind == "AutoencoderDC":
        encoder, parameters = Latents(vae), "latent_sample"
    height, width = options.latent_size(sides)
    if kind == "AutoencoderDC":
        # Pictures of up to attention_head_dim latents take another formula, which no real size has.
        height, width = height * (1 if options.height else 2), width * (1 if options.width else 2)
    batch = options.batch or 2
    latent = torch.randn(batch, channels, height, width, dtype=dtype)
    yield Graph("vae_decoder", decoder, {"latent_sample": latent}, ["sample"], {"latent_sample": LATENT, "sample": IMAGE})
    image = torch.rand(batch, 3, height * sides, width * sides, dtype=dtype) * 2 - 1
    yield Graph("vae_encoder", encoder, {"sample": image}, [parameters], {"sample": IMAGE, parameters: LATENT})
