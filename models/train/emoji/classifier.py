"""A classifier of categories, subcategories and emoji, independent of the generator, and a Fréchet distance."""

from pathlib import Path

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

import augment
import data
import networks
from training import CUDA, DEVICE, Fit, load, log, precision, record, save, to_device

HELD_OUT = 2048  # augmented pictures


def labels_of(entries: list[dict]) -> np.ndarray:
    """The numbers [N, 3] of category, subcategory and first name, in alphabetical order."""
    columns = [[entry["category"] for entry in entries], [entry["subcategory"] for entry in entries],
               [entry["names"][0] for entry in entries]]
    return np.stack([np.unique(column, return_inverse=True)[1] for column in columns], 1).astype(np.int64)


def new(entries: list[dict]) -> networks.Classifier:
    return networks.Classifier(*(int(n) + 1 for n in labels_of(entries).max(0)))


def blur_and_noise(x):
    """Half of the pictures blurred a little, all with noise of a random strength."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(len(x), 1, 1, 1, device=x.device) * (torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5)
    strength = torch.rand(len(x), 1, 1, 1, device=x.device) * 0.1
    return x + share * (blurred - x) + strength * torch.randn_like(x)


def train(given):
    """Write classifier.safetensors, and print how often it is right on held-out augmentations."""
    pictures, entries = data.load(given.work / "emoji.npz")
    plan = augment.Plan(pictures, entries, max(4 * HELD_OUT, given.plan // 4), 3, "single")
    painter = augment.Painter(pictures, plan, DEVICE)
    labels = torch.from_numpy(labels_of(entries)[plan.layers[:, 0]]).to(DEVICE)
    torch.manual_seed(1)
    fit = Fit("classifier", to_device(new(entries)), 2e-3, given.classifier, 0.99, 0.02,
              given.work / "classifier.state")
    while fit.passed < 1:
        rows = torch.randint(HELD_OUT, len(labels), (512 if CUDA else 64,), device=DEVICE)
        x = blur_and_noise(painter(rows)).contiguous(memory_format=torch.channels_last)
        with precision():
            _, logits = fit.network(x)
        fit.step(sum(F.cross_entropy(found.float(), wanted, label_smoothing=0.05)
                     for found, wanted in zip(logits, labels[rows].T)))
        if fit.keeps():
            fit.keep()
    fit.keep()
    network = fit.finish()
    save({"classifier": network}, given.out / "classifier.safetensors", torch.float32)
    agreement = agreements(network, painter(torch.arange(HELD_OUT, device=DEVICE)), labels[:HELD_OUT])
    record(given.out, "classifier", fit, agreement=agreement)
    log(f"classifier: {fit.steps} steps; right on {HELD_OUT} held-out augmentations: category {agreement[0]:.1%}, "
        f"subcategory {agreement[1]:.1%}, emoji {agreement[2]:.1%}")


def trained(folder: Path, entries: list[dict]) -> networks.Classifier:
    network = new(entries)
    load({"classifier": network}, folder / "classifier.safetensors")
    return network.eval().requires_grad_(False)


@torch.no_grad()
def features_and_labels(network, pictures) -> tuple[torch.Tensor, torch.Tensor]:
    """The features [N, 128], and the labels [N, 3] that it takes for likeliest."""
    parts = [network(part) for part in pictures.split(256)]
    labels = [torch.cat([logits[head].argmax(1) for _, logits in parts]) for head in range(3)]
    return torch.cat([features for features, _ in parts]), torch.stack(labels, 1)


def agreements(network, pictures, labels) -> list[float]:
    """The shares of pictures with the right category, subcategory and emoji."""
    found = features_and_labels(network, pictures)[1]
    return (found == labels).float().mean(0).tolist()


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """The Fréchet distance of two sets of features [N, D] (Heusel et al. 2017, equation 6)."""
    first, second = first.double().cpu().numpy(), second.double().cpu().numpy()
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))
