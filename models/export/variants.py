"""Exports tiny folders with each option, draws with `denoised`, and prints the differences from float32.

    python variants.py DENOISED OUT [FAMILY ...]

DENOISED is the program; ORT_DYLIB_PATH names the library of ONNX Runtime. The differences are the largest one of the
latents, over their standard deviation, and the mean one of the picture's values in −1 to 1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import tiny
from export import export
from graphs import Options

HEIGHT, WIDTH, STEPS = 64, 96, 4
# Rows of the network's text; Z-Image takes as many as a prompt has.
ROWS = {"sana_sprint": 300, "sana": 300, "pixart_sigma": 300, "flux2_klein": 512, "flux": 512, "sd3": 256,
        "sd_turbo": 77, "sdxl_turbo": 77, "lcm": 77}
# Families whose network is not trained here.
UNTRAINED = tiny.UNTRAINED | {"sana"}
HALF = dict(dtype=torch.float16)
VARIANTS = {"float32": ({}, None), "float16": (HALF, None), "int8": ({}, "int8"), "int4": ({}, "int4"),
            "float16 and int4": (HALF, "int4"), "fixed sizes": (dict(height=HEIGHT, width=WIDTH, batch=1), None)}


def main() -> None:
    torch.set_num_threads(1)
    program, out = sys.argv[1], Path(sys.argv[2])
    for family in sys.argv[3:] or ROWS | {"z_image_turbo": None}:
        tiny.make(family, out / family, 0 if family in UNTRAINED else 20)
        expected = None
        for name, (options, weights) in VARIANTS.items():
            if name == "fixed sizes":
                options = options | {"text_length": ROWS.get(family)}
            folder = out / f"{family}-export"
            shutil.rmtree(folder, ignore_errors=True)
            export(out / family, folder, Options(**options), weights)
            found = draw(program, folder)
            expected = expected or found
            latents = np.abs(found[1] - expected[1]).max() / expected[1].std()
            print(f"| {family} | {name} | {latents:.1e} | {np.abs(found[0] - expected[0]).mean():.1e} |", flush=True)


def draw(program: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the picture and the latents of one job."""
    files = [folder / "image.npy", folder / "latents.npy"]
    arguments = ["sample", folder, "--output", files[0], "--latents", files[1], "--engine", "onnxruntime",
                 "--prompt", "a red fox in the snow", "--seed", 5, "--steps", STEPS,
                 "--width", WIDTH, "--height", HEIGHT]
    subprocess.run([program, *map(str, arguments)], check=True, env=os.environ | {"DENOISED_ENGINE__PROVIDERS": "cpu"})
    return np.load(files[0]), np.load(files[1])


if __name__ == "__main__":
    main()
