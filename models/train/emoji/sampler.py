"""The noise of the training, and the sampler DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) for many prompts at once."""

import torch

import networks
from training import DEVICE, precision


def time_steps(steps: int) -> list[int]:
    """The time steps of `timestep_spacing="trailing"`."""
    return [int(round(1000 - i * 1000 / steps)) - 1 for i in range(steps)]


class Noise:
    """α and σ at every time step."""

    def __init__(self):
        products = networks.scheduler().alphas_cumprod.double()
        self.alpha = products.sqrt().float().to(DEVICE)
        self.sigma = (1 - products).sqrt().float().to(DEVICE)

    def add(self, x0, noise, t):
        """x_t and v."""
        alpha, sigma = (values[t][:, None, None, None] for values in (self.alpha, self.sigma))
        return alpha * x0 + sigma * noise, alpha * noise - sigma * x0

    def sample(self, network, x, ids, empty, steps: int, guidance: float):
        """The final latents. `x` is the noise at first, and `network` gets batches of its size."""
        times, before, step_before = time_steps(steps), None, None
        for now, after in zip(times, [*times[1:], None]):
            t = torch.full((len(x),), now, device=DEVICE)
            with precision():
                v = network(x, t, ids).detach().float()
                if guidance != 1:
                    unconditional = network(x, t, empty.expand(len(ids), -1)).detach().float()
                    v = unconditional + guidance * (v - unconditional)
            x0 = self.alpha[now] * x - self.sigma[now] * v
            if after is None:
                return x0
            step = torch.log(self.alpha[after] / self.sigma[after]) - torch.log(self.alpha[now] / self.sigma[now])
            estimate = x0 if before is None else x0 + (x0 - before) * (step / step_before / 2)
            x = self.sigma[after] / self.sigma[now] * x - self.alpha[after] * torch.expm1(-step) * estimate
            before, step_before = x0, step
