#!/usr/bin/env python3
"""Generate the golden files of this directory with torch 2.8.0, diffusers 0.42.1 and k-diffusion 0.1.1.

    pip install -r models/train/requirements.txt
    pip install --no-deps k-diffusion==0.1.1 torchsde==0.2.6 trampoline==0.1.2
    python tests/golden/make_golden.py

noise/      noise of torch's CPU generator for some seeds and sizes
samplers/   whole trajectories of the reference samplers on a closed-form Gaussian
seeds/      samples of diffusers' loops for a seed, with the Gaussian as the network
gaussian/   the Gaussian as a bundle, for tests of the command line
gaussian-*/ the same with other kinds of inputs

`--random N DIR` generates N random cases of the same classes in DIR. The tests compare them too if
DENOISED_SAMPLER_CASES names DIR.
"""

import inspect
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch

from cases import CASES, random_cases
from exact import Gaussian
from references import run

HERE = Path(__file__).parent
SHAPE = (1, 4, 5)
# Three channels, because the references split learned variances off at that number.
STATE = (3, 2, 3)

NOISE = [(seed, sizes) for seed, sizes in [
    (0, [784, 784]), (42, [16, 17, 31, 1000]), (1, [1, 3, 15, 2]), (2**40 + 5, [20, 5, 40])]]
SEEDS = [
    ("DDPMScheduler", {}, 50), ("DDPMScheduler", {}, 1000), ("DDIMScheduler", {}, 25),
    ("EulerAncestralDiscreteScheduler", {}, 30),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 20)]
# Number of evaluations that are saved at the start and at the end of a long trajectory.
KEPT = 60


def save(file: Path, tensor):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.ascontiguousarray(tensor.numpy(), dtype=np.float32))


def noise():
    cases = []
    for seed, sizes in NOISE:
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(size, generator=generator) for size in sizes]
        save(HERE / "noise" / f"{seed}.npy", torch.cat(drawn))
        cases.append({"seed": seed, "sizes": sizes})
    (HERE / "noise" / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def samplers(folder, cases):
    """Write rows.npy (network inputs and sample of each case) and noise.npy (its random draws)."""
    described, rows, noise = [], [], []
    initial = torch.randn((1, *STATE), generator=torch.Generator().manual_seed(0))
    for number, (class_name, settings, steps, eta, bound) in enumerate(cases):
        try:
            inputs, times, sample, draws, config = run(class_name, settings, steps, eta, initial, number)
        except Exception as error:  # the reference does not support every random case
            if cases is CASES:
                raise
            print("left out:", class_name, settings, steps, type(error).__name__, str(error)[:80])
            continue
        if not sample.isfinite().all():
            assert cases is not CASES, (class_name, settings)
            print("not finite:", class_name, settings, steps)
            continue
        evaluations = len(inputs)
        kept = [i for i in range(evaluations) if i < KEPT or i >= evaluations - KEPT]
        described.append({
            "scheduler": {"_class_name": class_name, **config}, "steps": steps, "eta": eta, "bound": bound, "evaluations": evaluations,
            "row": len(rows), "kept": kept if len(kept) < evaluations else None, "times": [times[i] for i in kept],
            "noise": len(noise), "draws": len(draws)})
        rows += [inputs[i] for i in kept] + [sample]
        noise += draws
    save(folder / "initial.npy", initial)
    save(folder / "rows.npy", torch.stack(rows).reshape(len(rows), -1))
    save(folder / "noise.npy", torch.stack(noise).reshape(len(noise), -1))
    lines = ",\n".join(json.dumps(case) for case in described)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n")


def seeds():
    """Run the loop of diffusers with one torch generator per sample, as its pipelines do."""
    for class_name, settings, steps in SEEDS:
        generator = torch.Generator("cpu").manual_seed(42)
        draws = []

        def draw(shape, generator, **_):
            draws.append(torch.randn(tuple(shape), generator=generator))
            return draws[-1]

        sys.modules[getattr(diffusers, class_name).__module__].randn_tensor = draw
        scheduler = getattr(diffusers, class_name)(**settings)
        scheduler.set_timesteps(steps)
        network = Gaussian(diffusers.DDPMScheduler().alphas_cumprod)
        x = draw((1, *SHAPE), generator) * scheduler.init_noise_sigma
        takes = "generator" in inspect.signature(scheduler.step).parameters
        for t in scheduler.timesteps:
            out = network(scheduler.scale_model_input(x, t), t[None])
            x = scheduler.step(out, t, x, **({"generator": generator} if takes else {})).prev_sample
        folder = HERE / "seeds" / f"{class_name}-{steps}"
        scheduler.save_pretrained(folder)
        save(folder / "sample.npy", x)
        save(folder / "initial.npy", draws[0])
        if draws[1:]:
            save(folder / "noise.npy", torch.stack(draws[1:]))


def gaussian(name, file, timestep, inputs, free):
    """Write the Gaussian for DDPM's schedule as a bundle whose graph takes this kind of time step."""
    scheduler = diffusers.DDPMScheduler()
    graph = HERE / name / file
    graph.parent.mkdir(parents=True, exist_ok=True)
    beside = HERE / name / ("scheduler" if "/" in file else "")
    scheduler.save_pretrained(beside)
    torch.onnx.export(
        Gaussian(scheduler.alphas_cumprod), (torch.randn(2, *SHAPE), timestep), str(graph),
        dynamo=False, opset_version=17, input_names=inputs, output_names=["out_sample"],
        dynamic_axes={name: {0: "batch"} for name in free})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--random"]:
        samplers(Path(sys.argv[3]), random_cases(int(sys.argv[2]), 1))
        sys.exit()
    noise()
    seeds()
    samplers(HERE / "samplers", CASES)
    names = ["sample", "timestep"]
    gaussian("gaussian", "unet/model.onnx", torch.tensor([5.0, 700.0]), names, [*names, "out_sample"])
    gaussian("gaussian-scalar", "model.onnx", torch.tensor(5.0), names, ["sample", "out_sample"])
    gaussian("gaussian-fixed", "model.onnx", torch.tensor([5]), ["noisy", "when"], [])
    (HERE / "gaussian-fixed/denoised.toml").write_text('[graph]\nsample = "noisy"\ntimestep = "when"\n')
