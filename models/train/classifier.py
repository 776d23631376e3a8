"""An independent digit classifier. It measures label agreement, and its features define a Fréchet
distance. It is trained on the training digits only, and prints its accuracy on the held-out ones."""

from pathlib import Path

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import nn

import data


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 64), nn.ReLU())
        self.leave = nn.Linear(64, 10)

    def forward(self, images):
        return self.leave(self.features(images))


def trained(work: Path, epochs: int = 20) -> Classifier:
    """Load the classifier, or train it. Images are in 0..1."""
    file, network = work / "classifier.pt", Classifier()
    if file.exists():
        network.load_state_dict(torch.load(file))
        return network.eval()
    torch.manual_seed(1)
    images, labels, test, test_labels = data.digits(work)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(images)).split(128):
            dy, dx = torch.randint(-2, 3, (2,)).tolist()
            batch = images[rows].roll((dy, dx), (2, 3))
            loss = F.cross_entropy(network(batch), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        decay.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(test).argmax(1) == test_labels).float().mean().item()
    print(f"classifier: {accuracy:.1%} accuracy on the held-out digits")
    torch.save(network.state_dict(), file)
    return network


@torch.no_grad()
def frechet(network: Classifier, a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance (Heusel et al. 2017, eq. 6) in the 64 features of this classifier."""
    (mean_a, cov_a), (mean_b, cov_b) = [
        (f.mean(0), np.cov(f, rowvar=False))
        for f in (network.features(images).numpy().astype(np.float64) for images in (a, b))]
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))
