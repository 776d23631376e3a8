"""Measure a bundle, and write the figures and sheets into its README.

Samples are drawn from the bundle's weights by diffusers' classes and this folder's sampler. `--denoised` names a binary
whose latents are compared with those of diffusers' pipeline for the same seeds.
"""

import argparse
import json
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

import augment
import captions
import classifier
import data
import sheet
from sampler import Noise
from text_to_latents import PROMPTS
from training import DEVICE, log, precision, set_up

SEEDS = [1, 2, 3]
START, END = "<!-- measured -->", "<!-- end -->"
SHOWN = 24  # prompts of the first sheet


class Model:
    """The networks of a bundle: prompts to pictures, many at once."""

    def __init__(self, bundle: Path):
        pipeline = StableDiffusionPipeline.from_pretrained(bundle, torch_dtype=torch.float32)
        self.pipeline, self.noise = pipeline, Noise()
        self.text, self.unet, self.vae = (part.to(DEVICE).eval() for part in (
            pipeline.text_encoder, pipeline.unet, pipeline.vae))

    def evaluate(self, x, t, ids):
        return self.unet(x, t, self.text(input_ids=ids).last_hidden_state, return_dict=False)[0]

    def encode(self, prompts: list[str]) -> torch.Tensor:
        length = self.pipeline.tokenizer.model_max_length
        return self.pipeline.tokenizer(prompts, padding="max_length", truncation=True, max_length=length,
                                       return_tensors="pt")["input_ids"].to(DEVICE)

    @torch.no_grad()
    def draw(self, prompts: list[str], steps: int, guidance: float, seed: int = 0) -> torch.Tensor:
        """Pictures [N, 3, 64, 64] in −1..1."""
        noise = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
        ids, empty, parts = self.encode(prompts), self.encode([""]), []
        for rows in torch.arange(len(prompts)).split(64):
            latents = self.noise.sample(self.evaluate, noise[rows], ids[rows], empty, steps, guidance)
            with precision():
                parts.append(self.vae.decode(latents / self.vae.config.scaling_factor).sample.float())
        return torch.cat(parts).clamp(-1, 1)


def plain_pictures(pictures: np.ndarray) -> torch.Tensor:
    """All pictures in −1..1, on white."""
    rgba = torch.from_numpy(pictures).float() / 255
    return (rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]) * 2 - 1


def measure_settings(given, model: Model, judge, pictures, entries) -> list[str]:
    """The agreement and the Fréchet distance of the names of emoji, for each number of steps and guidance."""
    weights = augment.weights(entries, given.pictures)
    candidates = [i for i, weight in enumerate(weights) if weight > 0 and not entries[i]["tones"]]
    random.Random(5).shuffle(candidates)
    chosen = candidates[: given.count]
    labels = torch.from_numpy(classifier.labels_of(entries))[chosen].to(DEVICE)
    real = plain_pictures(pictures[chosen]).to(DEVICE)
    features, found = classifier.features_and_labels(judge, real)
    right = (found == labels).float().mean(0).tolist()
    others = plain_pictures(pictures[candidates[given.count: 2 * given.count]]).to(DEVICE)
    floor = None
    if len(others) > 200:
        floor = classifier.frechet(features, classifier.features_and_labels(judge, others)[0])
    rows = [f"Prompts: the first names of {len(chosen)} emoji.", "",
            "| steps | guidance | evaluations | category | subcategory | emoji | Fréchet distance |",
            "|---|---|---|---|---|---|---|",
            f"| the pictures themselves | – | – | {right[0]:.1%} | {right[1]:.1%} | {right[2]:.1%} | 0 |"]
    if floor is not None:
        rows.append(f"| pictures of other emoji | – | – | – | – | – | {floor:.1f} |")
    prompts = [entries[i]["names"][0] for i in chosen]
    for steps, guidance in ((4, 1.0), (20, 1.0), (4, 2.0), (20, 2.5)):
        drawn = model.draw(prompts, steps, guidance, steps)
        found_features, found = classifier.features_and_labels(judge, drawn)
        right = (found == labels).float().mean(0).tolist()
        evaluations = steps * (1 if guidance == 1 else 2)
        rows.append(f"| {steps} | {guidance:g} | {evaluations} | {right[0]:.1%} | {right[1]:.1%} | {right[2]:.1%} | "
                    f"{classifier.frechet(found_features, features):.1f} |")
        log(rows[-1])
    return rows


def measure_memory(given, model: Model, pictures, entries) -> list[str]:
    """How near samples are to training pictures, and a sheet of samples beside the nearest ones."""
    training = plain_pictures(pictures)
    flat = training.flatten(1)
    prompts = [entry["names"][0] for entry in random.Random(6).sample([e for e in entries if not e["tones"]], 200)]
    prompts = PROMPTS[:SHOWN] + (prompts if given.pictures == "all" else [])
    drawn = model.draw(prompts, given.steps, given.guidance).cpu()
    # A mirrored picture is a training picture too.
    distance = torch.minimum(torch.cdist(drawn.flatten(1), flat), torch.cdist(drawn.flip(3).flatten(1), flat))
    distance = distance / flat.shape[1] ** 0.5
    nearest, index = distance.min(1)
    between = torch.cdist(flat[::7], flat) / flat.shape[1] ** 0.5
    between = between.masked_fill(between < 1e-4, 9).min(1).values
    same = sum(prompt in entries[i]["names"] for prompt, i in zip(prompts, index.tolist())) / len(prompts)
    pairs = torch.stack([drawn[:SHOWN], training[index[:SHOWN]]], 1).flatten(0, 1)
    sheet.save(pairs, 8, given.bundle / "nearest.png", 1)
    return ["", f"Of {len(prompts)} samples, {same:.1%} have a training picture with the prompt's name as their "
            f"nearest. The median distance to it (root mean square of −1..1) is {nearest.median():.3f}; between a "
            f"training picture and the nearest other one it is {between.median():.3f}."]


def compare(given, model: Model) -> list[str]:
    """The largest difference between the latents of `denoised` and those of diffusers' pipeline."""
    largest = 0.0
    for seed, prompt in zip(SEEDS, PROMPTS):
        file = given.work / "latents.npy"
        subprocess.run([given.denoised, "sample", given.bundle, "--prompt", prompt, "--seed", str(seed),
                        "--steps", str(given.steps), "--guidance", "1", "--latents", file,
                        "--output", given.work / "picture.png"], check=True, capture_output=True)
        wanted = model.pipeline(prompt, width=64, height=64, num_inference_steps=given.steps, guidance_scale=1.0,
                                generator=torch.Generator().manual_seed(seed), output_type="latent").images
        found = torch.from_numpy(np.load(file))
        largest = max(largest, (found - wanted.cpu()).abs().max().item())
    assert largest < 1e-3, largest
    return ["", f"The latents of `denoised` and of diffusers' pipeline differ by {largest:.1e} at most, "
            f"for {len(SEEDS)} seeds and prompts."]


def held_out_prompts() -> list[str]:
    """Every combination that no training picture shows."""
    prompts = [f"{colour} {name}" for name, colour in captions.HELD_OUT_COLOURS.items()]
    prompts += [f"{name} in a {box}" for box, names in captions.HELD_OUT_CONTENTS.items() for name in names]
    prompts += [" and ".join(sorted(pair)) for pair in captions.HELD_OUT_PAIRS]
    return prompts + [f"small {name}" for name in sorted(captions.HELD_OUT_SMALL)]


def training_table(out: Path) -> list[str]:
    """What each phase of the training took."""
    rows = ["", "| trained | seconds | steps | loss | on |", "|---|---|---|---|---|"]
    for phase in ("vae", "network", "distillation", "classifier"):
        file = out / f"{phase}.json"
        if file.exists():
            facts = json.loads(file.read_text())
            rows.append(f"| {phase} | {facts['seconds']} | {facts['steps']:,} | {facts['loss']:.3f} | {facts['device']} |")
    return rows


def into_readme(bundle: Path, lines: list[str]):
    """Replace what the README has between the two marks."""
    file = bundle / "README.md"
    text = file.read_text()
    before, after = text[: text.index(START)], text[text.index(END):]
    text = "\n".join([before + START, *lines, after])
    file.write_text(text.replace("COMBINED", ", ".join(held_out_prompts()) + "."))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"), help="has emoji.npz")
    parser.add_argument("--out", type=Path, help="has classifier.safetensors; by default --work")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parents[2] / "emoji")
    parser.add_argument("--pictures", choices=["all", "few"], default="all", help="as in training")
    parser.add_argument("--count", type=int, default=500, help="prompts of the table")
    parser.add_argument("--steps", type=int, default=4, help="of the sheets")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the sheets")
    parser.add_argument("--denoised", type=Path, help="the binary to compare with diffusers")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    set_up(given.threads)
    begin = time.time()
    pictures, entries = data.load(given.work / "emoji.npz")
    model, judge = Model(given.bundle), classifier.trained(given.out or given.work, entries).to(DEVICE)
    sheet.save(model.draw(PROMPTS[:SHOWN], given.steps, given.guidance), 8, given.bundle / "samples.png")
    sheet.save(model.draw(held_out_prompts(), given.steps, given.guidance), 8, given.bundle / "combined.png")
    lines = measure_settings(given, model, judge, pictures, entries)
    lines += measure_memory(given, model, pictures, entries)
    lines += compare(given, model) if given.denoised else []
    lines += training_table(given.out or given.work)
    lines += ["", f"Measured in {time.time() - begin:.0f} s on {DEVICE.type}."]
    print("\n".join(lines))
    if (given.bundle / "README.md").exists():
        into_readme(given.bundle, lines)


if __name__ == "__main__":
    main()
