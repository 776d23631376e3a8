"""Draws one image with ten steps of DDIM on ONNX Runtime: `python whole.py diffusers|plain GRAPH CONFIG OUT`.

Uses the scheduler of diffusers, or only numpy.
"""

import json
import sys

import numpy as np


def session(graph):
    import onnxruntime
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def with_diffusers(graph, config):
    import torch
    from diffusers import DDIMScheduler
    network, scheduler = session(graph), DDIMScheduler.from_config(config)
    scheduler.set_timesteps(10)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        answer = network.run(None, {"sample": x.numpy(), "timestep": np.array([float(t)], np.float32)})[0]
        x = scheduler.step(torch.from_numpy(answer), t, x).prev_sample
    return x.numpy()


def plain(graph, config):
    network = session(graph)
    betas = np.linspace(config["beta_start"], config["beta_end"], 1000, dtype=np.float32)
    bars = np.cumprod(1 - betas)
    x = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)
    for t in range(900, -1, -100):
        answer = network.run(None, {"sample": x, "timestep": np.array([t], np.float32)})[0]
        bar, after = bars[t], bars[t - 100] if t else np.float32(1)
        x0 = np.clip((x - np.sqrt(1 - bar) * answer) / np.sqrt(bar), -1, 1)
        x = np.sqrt(after) * x0 + np.sqrt(1 - after) * answer
    return x


def main():
    kind, graph, config, out = sys.argv[1:]
    with open(config) as file:
        config = json.load(file)
    x = (with_diffusers if kind == "diffusers" else plain)(graph, config)
    from PIL import Image
    Image.fromarray(((x[0].transpose(1, 2, 0) / 2 + 0.5).clip(0, 1) * 255).round().astype("uint8")).save(out)


if __name__ == "__main__":
    main()
