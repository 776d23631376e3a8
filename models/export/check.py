"""Compares an exported folder with torch: `python check.py MODEL OUT [--prompt PROMPT] [--steps 2]`.

Runs the pipeline of diffusers with the same seed, once in torch (float32) and once with the exported graphs in
ONNX Runtime, on the CPU, and prints the largest differences of latents and picture.
"""

import argparse
from pathlib import Path

import diffusers
import torch

from onnx_pipeline import attach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompt", default="a red fox in the snow")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    given = parser.parse_args()
    difference = compare(given.model, given.out, given.prompt, given.steps, given.height, given.width)
    print(f"latents: {difference['latents']:.2e}, picture: {difference['image']:.2e}")


def compare(model: Path, out: Path, prompt: str, steps: int, height: int, width: int, **options) -> dict[str, float]:
    """Returns the largest difference of the latents and of the picture, whose values are 0 to 1."""
    results = []
    for graphs in (None, out):
        pipe = diffusers.DiffusionPipeline.from_pretrained(model)
        pipe.set_progress_bar_config(disable=True)
        if graphs is not None:
            attach(pipe, graphs)
        if "use_resolution_binning" in pipe.__call__.__code__.co_varnames:
            options["use_resolution_binning"] = False
        results.append({
            name: pipe(prompt=prompt, num_inference_steps=steps, height=height, width=width, output_type=kind,
                       generator=torch.Generator().manual_seed(7), **options).images
            for name, kind in (("latents", "latent"), ("image", "pt"))})
    return {name: (results[0][name] - results[1][name]).abs().max().item() for name in results[0]}


if __name__ == "__main__":
    main()
