"""Train the class-conditional digits: v-prediction with DDPM's linear schedule."""

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler

import data
import training
from networks import NO_CLASS, Digits

BATCH = 64
DROP_LABEL = 0.1  # Ho & Salimans 2022, section 3.2

SCHEDULER = dict(
    num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02,
    prediction_type="v_prediction",
    # DDIM clips x0 without recomputing the noise, which spoils guided samples.
    clip_sample=False,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--work", type=Path, default=Path("work"))
    given = parser.parse_args()
    images, labels, _, _ = data.digits(given.work)
    images = images * 2 - 1
    scheduler = DDPMScheduler(**SCHEDULER)

    def loss_of(network):
        chosen = torch.randint(len(images), (BATCH,))
        x0, noise = images[chosen], torch.randn(BATCH, 1, 28, 28)
        t = torch.randint(1000, (BATCH,))
        label = torch.where(torch.rand(BATCH) < DROP_LABEL, NO_CLASS, labels[chosen])
        x_t = scheduler.add_noise(x0, noise, t)
        target = scheduler.get_velocity(x0, noise, t)
        return (network(x_t, t, label) - target).square().mean()

    training.train(Digits(), loss_of, given.minutes, given.work / "digits.pt")


if __name__ == "__main__":
    main()
