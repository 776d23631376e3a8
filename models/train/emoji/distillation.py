"""Distil guidance and steps: straighten the trajectories of the guided sampler (Liu, Gong & Liu 2023, reflow).

Samples of the guided network, together with the noise that they started from, train the network further.
Each noise then belongs to one picture, so that few steps suffice and guidance is no longer needed.
The distilled network is a v-prediction as before, for every sampler and every number of steps.
"""

import time

import torch

from sampler import time_steps
from training import CUDA, DEVICE, Every, Fit, log, record, save

SHARE = 0.42  # of the time, for drawing the trajectories
STEPS = 10  # of a trajectory
FEW = 4  # Half of the training is at the time steps of so many steps.


def trajectories(given, task, seconds: float):
    """Noise, final latents and prompts. Every twentieth batch has no prompt and no guidance."""
    begin, due = time.time(), Every(5 if CUDA else 60)
    found = []
    while time.time() - begin < seconds and len(found) * task.batch < 400_000:
        _, ids = task.batch_of_prompts()
        guidance = given.guidance
        if len(found) % 20 == 19:
            ids, guidance = task.empty.expand(len(ids), -1), 1
        noise = torch.randn(len(ids), 4, 16, 16, device=DEVICE)
        # On a GPU the U-Net is compiled for evaluations with gradients only.
        with torch.set_grad_enabled(CUDA):
            latents = task.noise.sample(task.network, noise, ids, task.empty, STEPS, guidance)
        found.append((noise.half(), latents.half(), ids))
        if due():
            log(f"distillation: {len(found) * task.batch} trajectories")
    return [torch.cat(parts) for parts in zip(*found)]


def train(given, task, seconds: float) -> torch.nn.Module:
    """Train the task's network, and write distilled.safetensors."""
    begin = time.time()
    noise, latents, prompts = trajectories(given, task, SHARE * seconds)
    log(f"distillation: {len(noise)} trajectories, deviation {latents.float().std().item():.3f}")
    fit = Fit("distillation", task.network, 0.5 * given.rate, seconds - (time.time() - begin), 0.998)
    few = torch.tensor(time_steps(FEW), device=DEVICE)
    while fit.passed < 1:
        rows = torch.randint(len(noise), (task.batch,), device=DEVICE)
        is_few = torch.rand(len(rows), device=DEVICE) < 0.5
        t = torch.where(is_few, few[torch.randint(FEW, (len(rows),), device=DEVICE)],
                        torch.randint(1000, (len(rows),), device=DEVICE))
        fit.step(task.loss(latents[rows].float(), noise[rows].float(), t, prompts[rows]))
        if fit.keeps():
            save(fit.average.parts(), given.out / "distilled.safetensors")
    distilled = fit.finish()
    save(distilled.parts(), given.out / "distilled.safetensors")
    record(given.out, "distillation", fit, trajectories=len(noise))
    return distilled
