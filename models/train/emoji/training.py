"""What all phases of the training share: the device, time, files of weights, and the optimiser."""

import copy
import json
import math
import os
import platform
import time
from pathlib import Path

import torch
import torch.distributed as processes
from safetensors.torch import load_file, save_file

START = time.time()
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def set_up(threads: int):
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def join(rank: int, count: int, meeting: Path):
    """Become one of `count` processes that train a network together. They find each other at the file `meeting`."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    processes.init_process_group("gloo", init_method=f"file://{meeting.resolve()}", rank=rank, world_size=count)


def is_first() -> bool:
    """Whether this process writes the files and the log."""
    return not processes.is_initialized() or processes.get_rank() == 0


def average_over_processes(tensors: list[torch.Tensor]):
    """Replace the tensors of every process by their mean."""
    if processes.is_initialized():
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        processes.all_reduce(flat)
        flat /= processes.get_world_size()
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view_as(tensor))


def log(*words):
    if is_first():
        print(f"{time.time() - START:6.1f} s", *words, flush=True)


def precision():
    """bfloat16 on a GPU, float32 on a processor."""
    return torch.autocast("cuda", torch.bfloat16, enabled=CUDA)


def record(folder: Path, phase: str, fit: "Fit", **facts):
    """Write `PHASE.json`: what was trained, for how long, and on what. `measure.py` puts it into the README."""
    if not is_first():
        return
    count = processes.get_world_size() if processes.is_initialized() else 1
    device = torch.cuda.get_device_name() if CUDA else f"{count * torch.get_num_threads()} threads of {platform.machine()}"
    loss = torch.stack(fit.losses[-100:]).mean().item() if fit.losses else None
    facts |= {"steps": fit.steps, "seconds": round(time.time() - fit.begin), "loss": loss, "device": device}
    part = folder / f"{phase}.part"
    part.write_text(json.dumps(facts))
    part.rename(folder / f"{phase}.json")


def to_device(network: torch.nn.Module) -> torch.nn.Module:
    return network.to(DEVICE, memory_format=torch.channels_last)


def save(modules: dict[str, torch.nn.Module], file: Path, dtype: torch.dtype = torch.float16):
    """Write the weights of modules as `NAME.KEY`. A file that is there stays whole until the new one is."""
    if not is_first():
        return
    weights = {f"{name}.{key}": value.detach().to("cpu", dtype).contiguous()
               for name, module in modules.items() for key, value in module.state_dict().items()
               if value.is_floating_point()}
    part = file.with_suffix(".part")
    save_file(weights, part)
    part.rename(file)


def load(modules: dict[str, torch.nn.Module], file: Path):
    """Read what `save` wrote. Buffers of integers stay as they are."""
    weights = load_file(file)
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}."): value.float() for key, value in weights.items()
               if key.startswith(f"{name}.")}
        missing, unexpected = module.load_state_dict(own, strict=False)
        floats = {key for key, value in module.state_dict().items() if value.is_floating_point()}
        if unexpected or floats & set(missing):
            raise ValueError(f"{file} does not fit {name}: {unexpected or missing}")


class Every:
    """True once in so many seconds."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.time()

    def __call__(self) -> bool:
        if time.time() - self.last < self.seconds:
            return False
        self.last = time.time()
        return True


class Fit:
    """AdamW with a cosine learning rate over a span of time, and averaged weights.

    With `state`, a file, training resumes where an earlier run was stopped; `keep` writes the file.
    """

    def __init__(self, name: str, network: torch.nn.Module, rate: float, seconds: float, decay: float,
                 weight_decay: float = 0.01, state: Path | None = None):
        self.name, self.network, self.rate, self.seconds, self.decay = name, network, rate, seconds, decay
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.weights, self.means = list(network.parameters()), list(self.average.parameters())
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self.begin, self.steps, self.losses, self.state = time.time(), 0, [], state
        self.reports, self.keeps = Every(5 if CUDA else 60), Every(25 if CUDA else 240)
        if state and state.exists():
            self.restore()
        self.look_at_clock()

    def restore(self):
        kept = torch.load(self.state, map_location=DEVICE)
        self.network.load_state_dict(kept["network"])
        self.average.load_state_dict(kept["average"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.steps = kept["steps"]
        self.begin = time.time() - kept["elapsed"]
        log(f"{self.name}: resumed at step {self.steps}")

    def keep(self):
        if self.state and is_first():
            part = self.state.with_suffix(".part")
            torch.save({"network": self.network.state_dict(), "average": self.average.state_dict(),
                        "optimiser": self.optimiser.state_dict(), "steps": self.steps,
                        "elapsed": time.time() - self.begin}, part)
            part.rename(self.state)

    def step(self, loss: torch.Tensor):
        loss.backward()
        average_over_processes([weight.grad for weight in self.weights])
        self.update()
        self.losses.append(loss.detach())
        if self.reports():
            self.report()

    def look_at_clock(self):
        """Set `passed`, the share of the time that has passed, to the same value in every process."""
        passed = torch.tensor([(time.time() - self.begin) / self.seconds])
        if processes.is_initialized():
            processes.broadcast(passed, 0)
        self.passed = passed.item()

    def update(self):
        """Move the weights along their gradients."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1, self.passed))) + 0.003
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * min(1, (self.steps + 1) / 100) * cosine
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.means, self.weights, 1 - min(self.decay, self.steps / (self.steps + 20)))
        self.look_at_clock()

    def report(self):
        self.losses = self.losses[-100:]
        loss = torch.stack(self.losses).mean().item() if self.losses else math.nan
        log(f"{self.name}: {min(1, self.passed):.1%}, step {self.steps}, loss {loss:.4f}")

    def finish(self) -> torch.nn.Module:
        """The averaged network, with the buffers of the trained one (the statistics of batch norm)."""
        self.report()
        for mean, value in zip(self.average.buffers(), self.network.buffers()):
            mean.copy_(value)
        return self.average
