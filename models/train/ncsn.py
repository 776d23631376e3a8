"""Train the noise-conditional score network (Song & Ermon 2019) on the digits."""

import argparse
from pathlib import Path

import torch

import data
import training
from networks import NoiseConditionalScore

BATCH = 64
SIGMAS = torch.logspace(0, -2, 10)  # ten noise levels in geometric progression (section 5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--work", type=Path, default=Path("work"))
    given = parser.parse_args()
    images, _, _, _ = data.digits(given.work)

    def loss_of(network):
        x = images[torch.randint(len(images), (BATCH,))]
        level = torch.randint(len(SIGMAS), (BATCH,))
        sigma = SIGMAS[level][:, None, None, None]
        noise = torch.randn_like(x)
        # Denoising score matching (equations 5 and 6), weighted with λ(σ) = σ².
        return (sigma * network(x + sigma * noise, level) + noise).square().mean()

    training.train(NoiseConditionalScore(SIGMAS), loss_of, given.minutes, given.work / "ncsn.pt")


if __name__ == "__main__":
    main()
