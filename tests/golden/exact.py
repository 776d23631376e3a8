"""Exact networks: closed-form predictions for data x_0 ~ N(MEAN, DEVIATION² I)."""

import math

import torch
from torch import nn

MEAN, DEVIATION = 0.3, 0.5


def posterior(x, alpha, sigma):
    """E[x_0 | x] and E[ε | x] for x = α·x_0 + σ·ε."""
    variance = alpha**2 * DEVIATION**2 + sigma**2
    centred = x - alpha * MEAN
    return MEAN + alpha * DEVIATION**2 * centred / variance, sigma * centred / variance


def predict(kind, x, alpha, sigma):
    x0, eps = posterior(x, alpha, sigma)
    return {
        "epsilon": lambda: eps,
        "sample": lambda: x0,
        "v_prediction": lambda: alpha * eps - sigma * x0,
        "flow_prediction": lambda: eps - x0,
        "score": lambda: -eps / sigma,
    }[kind]()


class Gaussian(nn.Module):
    """For a schedule of time steps. Between two time steps σ is interpolated linearly."""

    def __init__(self, alphas_cumprod, kind="epsilon", variance_channels=False):
        super().__init__()
        bars = alphas_cumprod.float()
        self.register_buffer("sigmas", (((1 - bars) / bars) ** 0.5).double())
        self.kind, self.variance_channels = kind, variance_channels

    def forward(self, sample, timestep):
        t = timestep.double().clamp(0, len(self.sigmas) - 1)
        low = t.floor().long()
        high = (low + 1).clamp(max=len(self.sigmas) - 1)
        between = self.sigmas[low] + (self.sigmas[high] - self.sigmas[low]) * (t - low)
        sigma = torch.where(t == low, self.sigmas[low], between)
        # An infinite σ means pure noise.
        bar = torch.where(torch.isinf(sigma), torch.zeros_like(sigma), 1 / (sigma**2 + 1))
        bar = bar.reshape(-1, *[1] * (sample.dim() - 1))
        x = sample.double()
        out = predict(self.kind, x, bar.sqrt(), (1 - bar).sqrt())
        if self.variance_channels:
            out = torch.cat([out, 0.5 * torch.sin(x)], 1)
        return out.float()


class Path:
    """For networks that take a noise level: σ, or a function of it."""

    def __init__(self, level, kind):
        self.level, self.kind = level, kind

    def __call__(self, sample, timestep):
        alpha, sigma = self.level(float(timestep))
        return predict(self.kind, sample.double(), alpha, sigma).float()


class Preconditioned:
    """For networks inside the preconditioning of EDM or of a consistency model."""

    def __init__(self, sigma_of, data, skip_out):
        self.sigma_of, self.data, self.skip_out = sigma_of, data, skip_out

    def __call__(self, sample, timestep):
        sigma = self.sigma_of(float(timestep))
        x = sample.double() * math.sqrt(sigma**2 + self.data**2)
        x0, _ = posterior(x, 1.0, sigma)
        skip, out = self.skip_out(sigma)
        return ((x0 - skip * x) / out).float()


def network_of(class_name, config, alphas_cumprod):
    """The exact network for a scheduler class, which takes the time that this class passes."""
    kind = config.get("prediction_type", "epsilon")
    if class_name.startswith("EDM"):
        data = config["sigma_data"]

        def skip_out(sigma):
            out = sigma * data / math.sqrt(sigma**2 + data**2)
            return data**2 / (sigma**2 + data**2), -out if kind == "v_prediction" else out

        return Preconditioned(lambda t: math.exp(4 * t), data, skip_out)
    if class_name.startswith("CM"):
        data, least = config["sigma_data"], config["sigma_min"]

        def boundary(sigma):
            skip = data**2 / ((sigma - least) ** 2 + data**2)
            return skip, max(sigma - least, 1e-9) * data / math.sqrt(sigma**2 + data**2)

        return Preconditioned(lambda t: math.exp(t / 250), data, boundary)
    if class_name == "ScoreSdeVeScheduler":
        return Path(lambda sigma: (1.0, sigma), "score")
    if class_name == "IPNDMScheduler":
        return Path(lambda t: (math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)), "v_prediction")
    if class_name == "SCMScheduler":
        # Its network is one of a straight path, and its number of training steps is only a limit.
        return Path(lambda t: (1 - t / 1000, t / 1000), "flow_prediction")
    if class_name.startswith("FlowMatch") or kind == "flow_prediction":
        steps = config["num_train_timesteps"]
        return Path(lambda t: (1 - t / steps, t / steps), "flow_prediction")
    if config.get("timestep_type") == "continuous" and kind == "v_prediction":
        return Path(lambda t: (1 / math.sqrt(math.exp(8 * t) + 1), math.exp(4 * t) / math.sqrt(math.exp(8 * t) + 1)), kind)
    learned = config.get("variance_type") in ("learned", "learned_range")
    return Gaussian(alphas_cumprod, kind, learned)
