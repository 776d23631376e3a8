"""Times the schedulers of diffusers: reads `NAME STEPS` lines from stdin, and prints seconds."""

import sys
import time

import torch
from diffusers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, UniPCMultistepScheduler,
)

SCHEDULERS = {
    "ddim": DDIMScheduler, "ddpm": DDPMScheduler, "euler_a": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler,
}


def steps(name, count):
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(count)
    sample, output = torch.randn(1, 1, 28, 28), torch.randn(1, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    noisy = {"generator": generator} if name in ("ddpm", "euler_a") else {}
    start = time.perf_counter()
    for t in scheduler.timesteps:
        scheduler.scale_model_input(sample, t)
        sample = scheduler.step(output, t, sample, **noisy).prev_sample
    return time.perf_counter() - start


def main():
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        print(steps(name, int(count)), flush=True)


if __name__ == "__main__":
    main()
