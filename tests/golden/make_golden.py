#!/usr/bin/env python3
"""Make the golden files of this directory from torch 2.8.0 and diffusers 0.42.1.

    pip install -r models/train/requirements.txt
    python tests/golden/make_golden.py

noise/      what torch's CPU generator draws for some seeds and sizes
samplers/   whole trajectories of diffusers' schedulers on a closed-form Gaussian
gaussian/   that Gaussian as a bundle, for tests of the command line
gaussian-*/ the same with other kinds of inputs
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
SHAPE = (1, 4, 5)
MEAN, DEVIATION = 0.3, 0.5

NOISE = [(seed, sizes) for seed, sizes in [
    (0, [784, 784]), (42, [16, 17, 31, 1000]), (1, [1, 3, 15, 2]), (2**40 + 5, [20, 5, 40])]]

LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SAMPLERS = [
    ("ddpm_10", "DDPMScheduler", {}, 10, None),
    ("ddpm_1000", "DDPMScheduler", {}, 1000, None),
    ("ddpm_large", "DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}, 20, None),
    ("ddpm_learned", "DDPMScheduler", {"variance_type": "learned_range"}, 20, None),
    ("ddpm_v_trailing", "DDPMScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 12, None),
    ("ddpm_sample_linspace", "DDPMScheduler", {"prediction_type": "sample", "timestep_spacing": "linspace"}, 12, None),
    ("ddpm_thresholding", "DDPMScheduler", {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}, 10, None),
    ("ddim_10", "DDIMScheduler", {}, 10, 0.0),
    ("ddim_50_eta", "DDIMScheduler", {"clip_sample": False}, 50, 0.7),
    ("ddim_cosine", "DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 2.0}, 25, 0.0),
    ("ddim_offset", "DDIMScheduler", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}, 20, 0.0),
    ("ddim_zero_snr", "DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 10, 0.0),
    ("ddim_thresholding", "DDIMScheduler", {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 3.0}, 10, 0.0),
    ("heun_5", "HeunDiscreteScheduler", {}, 5, None),
    ("heun_20_v", "HeunDiscreteScheduler", {**LINEAR, "prediction_type": "v_prediction"}, 20, None),
    ("heun_leading", "HeunDiscreteScheduler", {**LINEAR, "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": True}, 10, None),
    ("heun_trailing_sample", "HeunDiscreteScheduler", {"timestep_spacing": "trailing", "prediction_type": "sample"}, 10, None),
]


class Gaussian(nn.Module):
    """The exact prediction where x_0 ~ N(mean, deviation² I), as the schedule's own kind.

    Between two time steps σ is a straight line, as in diffusers' sigma-space schedulers.
    """

    def __init__(self, alphas_cumprod, kind="epsilon", variance_channels=False):
        super().__init__()
        bars = alphas_cumprod.double()
        self.register_buffer("sigmas", ((1 - bars) / bars).sqrt())
        self.kind, self.variance_channels = kind, variance_channels

    def forward(self, sample, timestep):
        t = timestep.double().clamp(0, len(self.sigmas) - 1)
        low = t.floor().long()
        high = (low + 1).clamp(max=len(self.sigmas) - 1)
        between = self.sigmas[low] + (self.sigmas[high] - self.sigmas[low]) * (t - low)
        sigma = torch.where(t == low, self.sigmas[low], between)
        # With an infinite σ only the noise is left.
        bar = torch.where(torch.isinf(sigma), torch.zeros_like(sigma), 1 / (sigma**2 + 1))
        bar = bar.reshape(-1, *[1] * (sample.dim() - 1))
        x = sample.double()
        alpha, noise = bar.sqrt(), (1 - bar).sqrt()
        eps = noise * (x - alpha * MEAN) / (bar * DEVIATION**2 + 1 - bar)
        x0 = MEAN + alpha * DEVIATION**2 * (x - alpha * MEAN) / (bar * DEVIATION**2 + 1 - bar)
        out = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - noise * x0}[self.kind]
        if self.variance_channels:
            out = torch.cat([out, 0.5 * torch.sin(x)], 1)
        return out.float()


class Recorder:
    """Stands in for torch.randn inside a scheduler's step and keeps each draw."""

    def __init__(self, seed):
        self.generator, self.draws = torch.Generator().manual_seed(seed), []

    def __call__(self, shape, **_):
        self.draws.append(torch.randn(tuple(shape), generator=self.generator))
        return self.draws[-1]


def trajectory(class_name, settings, steps, eta, initial, seed):
    scheduler = getattr(diffusers, class_name)(**settings)
    module = __import__(type(scheduler).__module__, fromlist=["x"])
    recorder = Recorder(seed)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = recorder
    scheduler.set_timesteps(steps)
    net = Gaussian(scheduler.alphas_cumprod, scheduler.config.prediction_type,
                   settings.get("variance_type") == "learned_range")
    more = {} if eta is None else {"eta": eta}
    x = initial * scheduler.init_noise_sigma
    states = []
    for t in scheduler.timesteps:
        out = net(scheduler.scale_model_input(x, t), t[None])
        if settings.get("variance_type") == "learned_range":
            # diffusers wants the mean's and the variance's channels told apart by their number.
            assert out.shape[1] == 2 * x.shape[1]
        x = scheduler.step(out, t, x, **more).prev_sample
        states.append(x)
    return torch.stack(states), recorder.draws, dict(scheduler.config)


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


def samplers():
    cases = []
    initial = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    save(HERE / "samplers" / "initial.npy", initial)
    for seed, (name, class_name, settings, steps, eta) in enumerate(SAMPLERS):
        states, draws, config = trajectory(class_name, settings, steps, eta, initial, seed)
        assert states.isfinite().all(), name
        keep = states if steps <= 100 else states[-100:]
        save(HERE / "samplers" / f"{name}.npy", keep)
        if draws:
            save(HERE / "samplers" / f"{name}.noise.npy", torch.stack(draws))
        config = {k: v for k, v in config.items() if not k.startswith("_")}
        cases.append({"name": name, "steps": steps, "eta": eta, "noisy": bool(draws),
                      "scheduler": {"_class_name": class_name, **config}})
    (HERE / "samplers" / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def gaussian(name, file, timestep, inputs, free):
    """The Gaussian for DDPM's schedule as a bundle whose graph takes such a time step."""
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
    noise()
    samplers()
    names = ["sample", "timestep"]
    gaussian("gaussian", "unet/model.onnx", torch.tensor([5.0, 700.0]), names, [*names, "out_sample"])
    gaussian("gaussian-scalar", "model.onnx", torch.tensor(5.0), names, ["sample", "out_sample"])
    gaussian("gaussian-fixed", "model.onnx", torch.tensor([5]), ["noisy", "when"], [])
    (HERE / "gaussian-fixed/denoised.toml").write_text('[graph]\nsample = "noisy"\ntimestep = "when"\n')
