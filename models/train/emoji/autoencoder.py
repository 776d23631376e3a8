"""Train the autoencoder: 64×64×3 to 16×16×4 and back, a variational one with a weak prior."""

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import augment
import data
import networks
import sheet
from training import CUDA, DEVICE, START, Fit, load, log, precision, record, save, to_device

PRIOR = 5e-4  # weight of the divergence from a normal distribution


def reconstruction_loss(found, wanted):
    """Absolute differences of the pixels, their gradients and the picture at half the size; squared ones of colours."""
    # Red against green, and both against blue. Squared, because absolute differences would leave green to its rareness.
    opponents = lambda x: torch.stack([x[:, 0] - x[:, 1], (x[:, 0] + x[:, 1]) / 2 - x[:, 2]], 1)
    colours = 4 * (opponents(found) - opponents(wanted)).square().mean()
    slopes = lambda x: (x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :])
    edges = sum((a - b).abs().mean() for a, b in zip(slopes(found), slopes(wanted)))
    coarse = (F.avg_pool2d(found, 2) - F.avg_pool2d(wanted, 2)).abs().mean()
    return (found - wanted).abs().mean() + colours + edges + 0.5 * coarse


def train(given):
    """Write vae.safetensors, autoencoder.png (pictures beside their reconstructions) and last vae.json."""
    pictures, entries = data.load(given.work / "emoji.npz")
    plan = augment.Plan(pictures, entries, max(2048, given.plan // 8), 1, given.pictures)
    painter = augment.Painter(pictures, plan, DEVICE)
    torch.manual_seed(0)
    network = to_device(networks.autoencoder(given.size))
    log(f"autoencoder: {networks.parameters(network):,} parameters")
    # The time of the imports counts where the end is fixed.
    seconds = given.autoencoder - (time.time() - START if given.until else 0)
    fit = Fit("autoencoder", network, 2e-3, seconds, 0.998, 0.0, given.work / "autoencoder.state")
    batch, size = 256 if CUDA else 16, len(plan.captions)
    while fit.passed < 1:
        wanted = painter(torch.randint(size, (batch,), device=DEVICE)).contiguous(memory_format=torch.channels_last)
        with precision():
            latents = network.encode(wanted).latent_dist
            found = network.decode(latents.sample()).sample
        divergence = latents.mean.float().square() + latents.var.float() - 1 - latents.logvar.float()
        fit.step(reconstruction_loss(found.float(), wanted) + PRIOR * divergence.mean())
        if fit.keeps():
            fit.keep()
    fit.keep()
    finish(fit.finish(), painter, given, fit)


@torch.no_grad()
def finish(network, painter, given, fit: Fit):
    """Measure the reconstruction, set the scaling factor, and write the files."""
    with precision():
        wanted = painter(torch.arange(1024, device=DEVICE))
        latents = torch.cat([network.encode(part).latent_dist.mean for part in wanted.split(128)])
        found = torch.cat([network.decode(part).sample for part in latents[:128].split(64)])
    difference = (found.float() - wanted[:128]).abs().mean().item()
    scaling = round(1 / latents.float().std().item(), 4)
    log(f"autoencoder: {fit.steps} steps, mean absolute difference {difference:.4f} of −1..1, scaling {scaling}")
    sheet.save(torch.stack([wanted[:48], found[:48]], 1).flatten(0, 1), 16, given.out / "autoencoder.png", 1)
    save({"vae": network}, given.out / "vae.safetensors")
    record(given.out, "vae", fit, size=given.size, scaling_factor=scaling, difference=difference)


def trained(folder: Path):
    """The autoencoder that `train` wrote, with its scaling factor."""
    settings = json.loads((folder / "vae.json").read_text())
    network = networks.autoencoder(settings["size"])
    load({"vae": network}, folder / "vae.safetensors")
    network.register_to_config(scaling_factor=settings["scaling_factor"])
    return network.eval().requires_grad_(False)
