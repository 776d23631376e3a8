"""The training loop of all networks: AdamW, a cosine learning rate, averaged weights."""

import copy
import math
import time
from pathlib import Path

import torch


def train(network, loss_of, minutes: float, checkpoint: Path, rate: float = 1e-3, seed: int = 0):
    """Train for `minutes`. `loss_of(network)` draws a batch and returns its loss.

    The learning rate depends on the elapsed time, so it reaches its end on slow machines too.
    Saves {"ema", "steps", "loss", "minutes"} into `checkpoint` once a minute and at the end.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    start, steps, running, saved = time.time(), 0, None, 0.0

    def save(done: float):
        state = {"ema": average.state_dict(), "steps": steps, "loss": running,
                 "minutes": done * minutes, "parameters": sum(p.numel() for p in network.parameters())}
        torch.save(state, checkpoint)
        print(f"{done * minutes:6.1f} min  step {steps}  loss {running:.5f}", flush=True)

    while (done := (time.time() - start) / 60 / minutes) < 1:
        warm = min(1, (steps + 1) / 200)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
        loss = loss_of(network)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        steps += 1
        decay = min(0.9995, steps / (steps + 50))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters()):
                mean.lerp_(value, 1 - decay)
        running = loss.item() if running is None else 0.99 * running + 0.01 * loss.item()
        if done * minutes - saved > 1:
            saved = done * minutes
            save(done)
    save(1.0)
