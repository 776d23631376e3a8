"""Compares an exported folder with torch: `python check.py MODEL OUT [--prompt PROMPT] [--steps 2]`.

Runs the pipeline of diffusers with the same seed, once in torch (float32) and once with the exported graphs in
ONNX Runtime, on the CPU, and prints the largest differences of latents and picture.
"""

import argparse
import inspect
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
    print(f"latents: {difference['latents']:.2e}, at a standard deviation of {difference['deviation']:.2g}; "
          f"picture: {difference['image']:.2e}, of values in 0 to 1")


def compare(model: Path, out: Path, prompt: str, steps: int, height: int, width: int, **options) -> dict[str, float]:
    """Returns the largest difference of the latents and of the picture, whose values are 0 to 1.

    `deviation` is the standard deviation of the latents in torch.
    """
    results = []
    for graphs in (None, out):
        pipe = diffusers.DiffusionPipeline.from_pretrained(model, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        if graphs is not None:
            attach(pipe, graphs)
        parameters = inspect.signature(pipe.__call__).parameters
        if "use_resolution_binning" in parameters:
            options["use_resolution_binning"] = False
        if "intermediate_timesteps" in parameters and steps != 2:
            # SANA-Sprint's default time between two steps.
            options["intermediate_timesteps"] = None
        results.append({
            name: pipe(prompt=prompt, num_inference_steps=steps, height=height, width=width, output_type=kind,
                       generator=torch.Generator().manual_seed(7), **options).images
            for name, kind in (("latents", "latent"), ("image", "pt"))})
    differences = {name: (results[0][name] - results[1][name]).abs().max().item() for name in results[0]}
    return differences | {"deviation": results[0]["latents"].std().item()}


if __name__ == "__main__":
    main()
