"""Train the Swiss roll: ε-prediction of two-dimensional points."""

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler

import data
import training
from networks import Points

CLOUDS, POINTS = 64, 8  # each cloud of a training batch has its own time step

SCHEDULER = dict(
    num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02,
    prediction_type="epsilon", clip_sample=False,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--work", type=Path, default=Path("work"))
    given = parser.parse_args()
    roll = data.swiss_roll(100_000, seed=0)
    scheduler = DDPMScheduler(**SCHEDULER)

    def loss_of(network):
        x0 = roll[torch.randint(len(roll), (CLOUDS, POINTS))]
        noise, t = torch.randn_like(x0), torch.randint(1000, (CLOUDS,))
        return (network(scheduler.add_noise(x0, noise, t), t) - noise).square().mean()

    training.train(Points(), loss_of, given.minutes, given.work / "swissroll.pt")


if __name__ == "__main__":
    main()
