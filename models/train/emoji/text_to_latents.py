"""Train the text encoder and the U-Net on the latents of augmented pictures, and distil them."""

import signal
import time

import torch

import augment
import autoencoder
import data
import distillation
import networks
import sheet
import tokenizer
from sampler import Noise
from training import CUDA, DEVICE, START, Every, Fit, is_first, log, precision, record, save, to_device

DROP_PROMPT = 0.1  # Ho & Salimans 2022, section 3.2
# The first 24 are those of the README's sheet. No training picture combines the words of the last eight.
PROMPTS = [
    "grinning face", "crying cat", "pizza", "red apple", "fox", "rocket", "sailboat", "christmas tree",
    "red heart", "hamburger", "full moon", "penguin", "house", "airplane", "birthday cake", "soccer ball",
    "robot", "ghost", "green book", "taxi", "octopus", "rose", "fire", "umbrella",
    "blue cat face", "red heart in a box", "purple pizza", "green fire", "blue strawberry", "pizza and rocket",
    "small octopus", "dog face in a box",
]


class TextToLatents(torch.nn.Module):
    """The text encoder and the U-Net: x_t, t and token ids to v."""

    def __init__(self, size: str):
        super().__init__()
        self.text = networks.text_encoder(tokenizer.SIZE)
        self.unet = networks.unet(size)

    def forward(self, x, t, ids):
        rows = self.text(input_ids=ids.contiguous()).last_hidden_state
        # One layout, so that the U-Net is compiled once.
        return self.unet(x.contiguous(memory_format=torch.channels_last), t, rows, return_dict=False)[0]

    def parts(self) -> dict[str, torch.nn.Module]:
        return {"text": self.text, "unet": self.unet}


def compile_unet(network: TextToLatents, batch: int, seconds: int):
    """Compile the U-Net in place on a GPU, unless that fails or takes too long."""
    if not CUDA:
        return

    def stop(*_):
        raise TimeoutError(f"compilation took {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    try:
        signal.alarm(seconds)
        network.unet.compile(dynamic=False)
        x = torch.randn(batch, 4, 16, 16, device=DEVICE)
        t = torch.randint(1000, (batch,), device=DEVICE)
        ids = torch.full((batch, networks.LENGTH), tokenizer.SIZE - 1, device=DEVICE)
        for _ in range(3):
            with precision():
                loss = network(x, t, ids).float().square().mean()
            loss.backward()
            torch.cuda.synchronize()
            log("compiled: evaluated")
    except Exception as error:
        log(f"not compiled: {type(error).__name__}: {str(error)[:500]}")
        network.unet._compiled_call_impl = None
        torch._dynamo.reset()
    finally:
        signal.alarm(0)
        network.zero_grad(set_to_none=True)


@torch.no_grad()
def latents_of(plan: augment.Plan, pictures, vae) -> torch.Tensor:
    """The scaled latents of every picture of a plan, in half precision."""
    painter, vae, found = augment.Painter(pictures, plan, DEVICE), to_device(vae), []
    with precision():
        for rows in torch.arange(len(plan.captions), device=DEVICE).split(2048 if CUDA else 64):
            mean = vae.encode(painter(rows)).latent_dist.mean
            found.append((mean.float() * vae.config.scaling_factor).half())
    return torch.cat(found)


class Task:
    """The training pictures as latents, their prompts, and the loss."""

    def __init__(self, given, network: TextToLatents):
        words = tokenizer.load(given.work / "tokenizer")
        self.network, self.noise = network, Noise()
        self.batch = given.batch or (512 if CUDA else 32)
        self.encode = lambda texts: torch.tensor(tokenizer.encode(words, texts), device=DEVICE)
        self.empty = self.encode([""])
        pictures, entries = data.load(given.work / "emoji.npz")
        plan = augment.Plan(pictures, entries, given.plan, 2, given.pictures)
        self.ids = self.encode(plan.captions)
        log(f"planned {len(plan.captions)} pictures")
        while not (given.out / "vae.json").exists():
            time.sleep(0.2)
        self.vae = autoencoder.trained(given.out)
        self.latents = latents_of(plan, pictures, self.vae)
        log(f"encoded them, deviation {self.latents.float().std().item():.3f}")

    def batch_of_prompts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random rows of the plan, and their prompts."""
        rows = torch.randint(len(self.ids), (self.batch,), device=DEVICE)
        return rows, self.ids[rows]

    def loss(self, x0, noise, t, ids):
        x_t, v = self.noise.add(x0, noise, t)
        with precision():
            found = self.network(x_t, t, ids)
        return (found.float() - v).square().mean()

    @torch.no_grad()
    def draw(self, network, steps: int, guidance: float, file):
        """Draw `PROMPTS`, from the same noise every time."""
        if not is_first():
            return
        start = torch.randn(len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(3)).to(DEVICE)
        latents = self.noise.sample(network, start, self.encode(PROMPTS), self.empty, steps, guidance)
        with precision():
            pictures = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        sheet.save(pictures, 8, file)
        log(f"wrote {file}")


def train(given):
    """Write base.safetensors and distilled.safetensors, each with a sheet of the prompts."""
    torch.manual_seed(0)
    network = to_device(TextToLatents(given.size))
    log(f"U-Net: {networks.parameters(network.unet):,} parameters, "
        f"text encoder: {networks.parameters(network.text):,}")
    compile_unet(network, given.batch or 512, 110)
    task = Task(given, network)
    since_start = time.time() - START
    seconds = given.until - given.distillation - since_start - 4 if given.until else given.network
    torch.seed()  # Processes see different rows, and a run that resumes sees others than before.
    fit = Fit("network", network, given.rate, seconds, 0.999, state=given.work / "network.state")
    draws = Every(900)
    while fit.passed < 1:
        rows, ids = task.batch_of_prompts()
        is_dropped = torch.rand(len(rows), 1, device=DEVICE) < DROP_PROMPT
        x0 = task.latents[rows].float()
        t = torch.randint(1000, (len(rows),), device=DEVICE)
        fit.step(task.loss(x0, torch.randn_like(x0), t, torch.where(is_dropped, task.empty, ids)))
        if fit.keeps():
            fit.keep()
            save(fit.average.parts(), given.out / "base.safetensors")
        if draws():
            task.draw(fit.average, 20, given.guidance, given.out / "base-20.png")
    fit.keep()
    base = fit.finish()
    save(base.parts(), given.out / "base.safetensors")
    record(given.out, "network", fit, batch=task.batch, pictures=given.pictures)
    task.draw(base, 20, given.guidance, given.out / "base-20.png")
    if given.distillation > 0:
        network.load_state_dict(base.state_dict())
        seconds = given.until - 3 - (time.time() - START) if given.until else given.distillation
        distilled = distillation.train(given, task, seconds)
        task.draw(distilled, 4, 1, given.out / "distilled-4.png")
        task.draw(distilled, 20, 1, given.out / "distilled-20.png")
