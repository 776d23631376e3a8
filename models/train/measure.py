"""Measure the quality of the bundled models, and write the results and sample grids into their READMEs.

Samples are drawn with ONNX Runtime and the schedulers of diffusers, so the results describe the
models and not the samplers of this project.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from PIL import Image
from scipy.spatial.distance import cdist

import classifier
import data
import ncsn
from networks import NO_CLASS

# Name, scheduler, steps, number of images.
DIGITS = [
    ("ddim", DDIMScheduler, 10, 300), ("ddim", DDIMScheduler, 25, 300), ("ddim", DDIMScheduler, 50, 300),
    ("heun", HeunDiscreteScheduler, 10, 300),
    ("dpmpp_2m", DPMSolverMultistepScheduler, 10, 300), ("dpmpp_2m", DPMSolverMultistepScheduler, 20, 300),
    ("ddpm", DDPMScheduler, 50, 300), ("ddpm", DDPMScheduler, 1000, 100),
]
SWISSROLL = [("ddim", DDIMScheduler, 20), ("ddim", DDIMScheduler, 100), ("ddpm", DDPMScheduler, 50),
             ("ddpm", DDPMScheduler, 250), ("ddpm", DDPMScheduler, 1000)]
GUIDANCE = 2.0
START, END = "<!-- measured -->", "<!-- end -->"


class Graph:
    """An exported network."""

    def __init__(self, bundle: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(bundle / "unet/model.onnx", options)

    def __call__(self, **inputs):
        given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        return torch.from_numpy(self.session.run(None, given)[0])


def reverse(scheduler, steps: int, start: torch.Tensor, predict):
    """Run the loop of diffusers. Returns the sample and the number of evaluations."""
    scheduler.set_timesteps(steps)
    x = start * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = predict(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(out, t, x).prev_sample
    return x, len(scheduler.timesteps)


def draw_digits(graph, scheduler, steps, labels, guidance):
    """Draw one image per label, in 0..1."""
    parts = []
    for some in labels.split(100):
        def predict(x, t):
            time = np.full(len(x), int(t), np.int64)
            with_class = graph(sample=x.numpy(), timestep=time, class_labels=some.numpy())
            if guidance == 1:
                return with_class
            none = np.full(len(x), NO_CLASS, np.int64)
            without = graph(sample=x.numpy(), timestep=time, class_labels=none)
            return without + guidance * (with_class - without)

        x, evaluations = reverse(scheduler, steps, torch.randn(len(some), 1, 28, 28), predict)
        parts.append(x)
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1), evaluations


def measure_digits(models: Path, work: Path):
    judge, graph = classifier.trained(work), Graph(models / "digits")
    _, _, held_out, held_out_labels = data.digits(work)
    with torch.no_grad():
        accuracy = (judge(held_out).argmax(1) == held_out_labels).float().mean().item()
    config = json.loads((models / "digits/scheduler/scheduler_config.json").read_text())
    rows = []
    for name, kind, steps, count in DIGITS:
        for guidance in (GUIDANCE, 1.0):
            torch.manual_seed(steps)
            labels = torch.arange(count) % 10
            images, evaluations = draw_digits(graph, kind.from_config(config), steps, labels, guidance)
            with torch.no_grad():
                right = (judge(images).argmax(1) == labels).float().mean().item()
            distance = classifier.frechet(judge, images, held_out) if count >= 300 else None
            shown = f"{distance:.1f}" if distance is not None else "–"
            rows.append(f"| {name} | {steps} | {evaluations} | {guidance:g} | {count} | {right:.1%} | {shown} |")
            print(rows[-1], flush=True)
    train, _, _, _ = data.digits(work)
    torch.manual_seed(0)
    floor = classifier.frechet(judge, train[torch.randperm(len(train))[:300]], held_out)
    text = [f"The classifier has an accuracy of {accuracy:.1%} on the held-out digits. For comparison, the Fréchet distance "
            f"between 300 training digits and the held-out ones is {floor:.1f}.", "",
            "| sampler | steps | NFE | guidance | images | label agreement | Fréchet distance |",
            "|---|---|---|---|---|---|---|", *rows]
    into_readme(models / "digits", text)
    torch.manual_seed(0)
    labels = torch.arange(10).repeat_interleave(10)
    images, _ = draw_digits(graph, DDIMScheduler.from_config(config), 25, labels, GUIDANCE)
    save_grid(images, models / "digits/samples.png")


def anneal(graph, count: int, per_level: int):
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1)."""
    x = torch.rand(count, 1, 28, 28)
    for level, sigma in enumerate(ncsn.SIGMAS):
        alpha = 2e-5 * float(sigma**2 / ncsn.SIGMAS[-1] ** 2) * 100 / per_level
        for _ in range(per_level):
            score = graph(sample=x.numpy(), noise_level=np.full(count, level, np.int64))
            x = x + alpha / 2 * score + alpha**0.5 * torch.randn_like(x)
    return x.clamp(0, 1)


def measure_ncsn(models: Path, work: Path):
    judge, graph = classifier.trained(work), Graph(models / "digits-ncsn")
    _, _, held_out, _ = data.digits(work)
    rows, grid = [], None
    for per_level in (10, 100):
        torch.manual_seed(per_level)
        images = anneal(graph, 100, per_level)
        with torch.no_grad():
            sure = judge(images).softmax(1).amax(1).mean().item()
        distance = classifier.frechet(judge, images, held_out)
        rows.append(f"| {per_level} | {10 * per_level} | {distance:.1f} | {sure:.1%} |")
        print(rows[-1], flush=True)
        grid = images
    into_readme(models / "digits-ncsn", [
        "100 images each. The network takes no class, so the table shows the classifier's mean confidence in place of label agreement.", "",
        "| steps per level | NFE | Fréchet distance | classifier confidence |", "|---|---|---|---|", *rows])
    save_grid(grid, models / "digits-ncsn/samples.png")


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Energy distance (Székely & Rizzo 2013): 2 E|A−B| − E|A−A'| − E|B−B'|."""
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def measure_swissroll(models: Path, work: Path):
    del work
    graph = Graph(models / "swissroll")
    config = json.loads((models / "swissroll/scheduler/scheduler_config.json").read_text())
    held_out = data.swiss_roll(4096, seed=99).numpy()
    floor = energy_distance(data.swiss_roll(4096, seed=100).numpy(), held_out)
    rows = []
    for name, kind, steps in SWISSROLL:
        torch.manual_seed(steps)
        predict = lambda x, t: graph(sample=x.numpy(), timestep=np.full(len(x), int(t), np.int64))
        x, evaluations = reverse(kind.from_config(config), steps, torch.randn(4, 1024, 2), predict)
        distance = energy_distance(x.reshape(-1, 2).numpy(), held_out)
        rows.append(f"| {name} | {steps} | {evaluations} | {distance:.5f} |")
        print(rows[-1], flush=True)
    into_readme(models / "swissroll", [
        f"4,096 points each, compared with 4,096 held-out points. The distance between two sets of data is {floor:.5f}.", "",
        "| sampler | steps | NFE | energy distance |", "|---|---|---|---|", *rows])


def save_grid(images: torch.Tensor, file: Path):
    """Save the images in ten columns, at twice their size."""
    pixels = (images[:, 0] * 255).round().byte().numpy()
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in pixels.reshape(-1, 10, 28, 28)])
    Image.fromarray(sheet.repeat(2, 0).repeat(2, 1)).save(file, optimize=True)


def into_readme(bundle: Path, lines: list[str]):
    file = bundle / "README.md"
    text = file.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    file.write_text(before + START + "\n" + "\n".join(lines) + "\n" + END + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=["digits", "ncsn", "swissroll"])
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--models", type=Path, default=Path(__file__).parent.parent)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        globals()[f"measure_{name}"](given.models, given.work)


if __name__ == "__main__":
    main()
