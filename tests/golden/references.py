"""The loops of the reference implementations, with every evaluation and every random draw recorded."""

import contextlib
import importlib.util
import io
import sys
import types

import diffusers
import torch

from exact import network_of

# Only two files of k-diffusion are needed. Importing the whole package, or torchvision, would import
# the libraries for training.
_package = types.ModuleType("k_diffusion")
_package.__path__ = importlib.util.find_spec("k_diffusion").submodule_search_locations
_transforms = types.ModuleType("torchvision.transforms")
_transforms.functional = None
sys.modules.update({"k_diffusion": _package, "torchvision.transforms": _transforms})

import k_diffusion.external  # noqa: E402
import k_diffusion.sampling  # noqa: E402

diffusers.utils.logging.set_verbosity_error()


class Recorder:
    """Replaces torch.randn and the increments of a Brownian tree, and records each draw."""

    def __init__(self, seed):
        self.generator, self.draws = torch.Generator().manual_seed(seed), []

    def __call__(self, shape, **_):
        self.draws.append(torch.randn(tuple(shape), generator=self.generator))
        return self.draws[-1]

    def tree(self, real):
        """A noise sampler that records the increments of a real Brownian tree."""

        def make(x, sigma_min, sigma_max, seed=None, **_):
            sampler = real(x, sigma_min, sigma_max, seed=7)

            def noise(sigma, sigma_next):
                self.draws.append(sampler(torch.as_tensor(sigma), torch.as_tensor(sigma_next)))
                return self.draws[-1]

            return noise

        return make


class Watched:
    """Records the inputs and time steps of a network."""

    def __init__(self, network):
        self.network, self.inputs, self.times = network, [], []

    def __call__(self, sample, timestep):
        self.inputs.append(sample.clone())
        self.times.append(float(timestep))
        return self.network(sample, torch.as_tensor(timestep).reshape(1))


def run(class_name, settings, steps, eta, initial, seed):
    """Returns the network's inputs, its time steps, the sample, the random draws and the configuration."""
    if class_name.startswith("sample_"):
        return k_diffusion_loop(class_name, settings, steps, eta, initial, seed)
    arguments = scm_arguments(settings, steps) if class_name == "SCMScheduler" else {}
    keys = {k: v for k, v in settings.items() if k not in arguments}
    with contextlib.redirect_stderr(io.StringIO()):
        scheduler = getattr(diffusers, class_name)(**keys)
    given = {**dict(scheduler.config), **settings}
    config = {k: v for k, v in given.items() if not k.startswith("_")}
    module = sys.modules[type(scheduler).__module__]
    recorder = Recorder(seed)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = recorder
    if hasattr(module, "BrownianTreeNoiseSampler"):
        real = getattr(module, "RealTree", module.BrownianTreeNoiseSampler)
        module.RealTree, module.BrownianTreeNoiseSampler = real, recorder.tree(real)
    network = Watched(network_of(class_name, config, getattr(scheduler, "alphas_cumprod", None)))
    scheduler.set_timesteps(steps, **arguments)
    if hasattr(scheduler, "set_begin_index"):
        # If the first time step occurs twice, the reference would otherwise start at the second.
        scheduler.set_begin_index(0)
    loops = {"ScoreSdeVeScheduler": score_sde_loop, "RePaintScheduler": repaint_loop, "SCMScheduler": scm_loop}
    loop = loops.get(class_name, plain_loop)
    sample = loop(scheduler, network, initial, steps, eta)
    return network.inputs, network.times, sample, recorder.draws, config


def plain_loop(scheduler, network, x, steps, eta):
    more = {} if eta is None else {"eta": eta}
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(scaled, t), t, x, **more).prev_sample
    return x


def scm_arguments(settings, steps):
    """What diffusers' SanaSprintPipeline passes to set_timesteps, which refuses an angle between for other than two steps."""
    between = settings.get("intermediate_timesteps", 1.3) if steps == 2 else None
    return {"max_timesteps": settings.get("max_timesteps", 1.57080), "intermediate_timesteps": between}


def scm_loop(scheduler, network, x, steps, eta):
    """The loop of diffusers' SanaSprintPipeline. Its network takes times up to 1, the exact one here up to 1000."""
    data = scheduler.config.sigma_data
    x = x * data
    for t in scheduler.timesteps[:-1]:
        s = torch.sin(t) / (torch.cos(t) + torch.sin(t))
        norm = torch.sqrt(s**2 + (1 - s) ** 2)
        scaled = x / data * norm
        output = network(scaled, 1000 * s)
        output = ((1 - 2 * s) * scaled + (1 - 2 * s + 2 * s**2) * output) / norm * data
        x, denoised = scheduler.step(output, t, x, return_dict=False)
    return denoised / data


def score_sde_loop(scheduler, network, x, steps, eta):
    """The loop of diffusers' ScoreSdeVePipeline."""
    scheduler.set_sigmas(steps)
    x = x * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(network(x, scheduler.sigmas[i]), x).prev_sample
        output = scheduler.step_pred(network(x, scheduler.sigmas[i]), t, x)
        x = output.prev_sample
    return output.prev_sample_mean


def repaint_loop(scheduler, network, x, steps, eta):
    """The loop of diffusers' RePaintPipeline, with an empty known region."""
    if eta is not None:
        scheduler.eta = eta
    last = scheduler.timesteps[0] + 1
    for t in scheduler.timesteps:
        if t < last:
            x = scheduler.step(network(x, t), t, x, torch.zeros_like(x), torch.zeros_like(x)).prev_sample
        else:
            x = scheduler.undo_step(x, last)
        last = t
    return x


def k_diffusion_loop(name, settings, steps, eta, initial, seed):
    betas = diffusers.DDPMScheduler(**{k: v for k, v in settings.items() if k in ("beta_start", "beta_end", "beta_schedule")})
    kind = settings.get("prediction_type", "epsilon")
    network = Watched(network_of("", {"prediction_type": kind}, betas.alphas_cumprod))
    wrapper = {"epsilon": k_diffusion.external.DiscreteEpsDDPMDenoiser, "v_prediction": k_diffusion.external.DiscreteVDDPMDenoiser}[kind]
    model = wrapper(network, betas.alphas_cumprod, quantize=False)
    least, most = model.sigma_min.item(), model.sigma_max.item()
    sigmas = model.get_sigmas(steps)
    for spread in ("karras", "exponential", "polyexponential"):
        if settings.get(f"use_{spread}_sigmas"):
            rho = {"rho": settings["rho"]} if "rho" in settings else {}
            sigmas = getattr(k_diffusion.sampling, f"get_sigmas_{spread}")(steps, least, most, **rho)
    recorder = Recorder(seed)
    more = {} if eta is None else {"eta": eta}
    if "solver_type" in settings:
        more["solver_type"] = settings["solver_type"]
    x = initial * sigmas[0]
    if name != "sample_dpm_2":
        tree = recorder.tree(k_diffusion.sampling.BrownianTreeNoiseSampler)
        more["noise_sampler"] = tree(x, sigmas[sigmas > 0].min(), sigmas.max())
    sample = getattr(k_diffusion.sampling, name)(model, x, sigmas, disable=True, **more)
    return network.inputs, network.times, sample, recorder.draws, settings
