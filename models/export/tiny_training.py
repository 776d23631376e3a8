"""Trains the network of a tiny pipeline for a moment, on one smooth pattern for each prompt."""

import torch

PROMPTS = ["a red fox in the snow", "city at night", "a small blue ship under the moon, watercolor", "blurry", ""]
BATCH, ROWS, COLUMNS = 4, 4, 6


def train(pipe, steps: int) -> None:
    """Learns noise − x₀ at flow time s in 0 to 1, or for a U-Net and PixArt the noise at one of 1000 steps."""
    torch.manual_seed(20)
    kind = type(pipe).__name__
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    noise_prediction = hasattr(pipe, "unet") or kind == "PixArtSigmaPipeline"
    side = 16 if hasattr(pipe, "unet") else None
    height, width = (side, side) if side else (ROWS, COLUMNS)
    channels = network.config.in_channels
    coarse = torch.randn(len(PROMPTS), channels, 2, 3)
    patterns = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    conditions = [encode(pipe, kind, prompt) for prompt in PROMPTS]
    alphas = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000), 0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(PROMPTS), (BATCH,))
        x0 = patterns[chosen] + 0.2 * torch.randn(BATCH, channels, height, width)
        noise = torch.randn_like(x0)
        if noise_prediction:
            time = torch.randint(1000, (BATCH,))
            alpha = alphas[time].reshape(-1, 1, 1, 1)
            x, target = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise, noise
        else:
            time = torch.rand(BATCH) * 0.98 + 0.02
            s = time.reshape(-1, 1, 1, 1)
            x, target = (1 - s) * x0 + s * noise, noise - x0
        rows = [torch.cat([conditions[index][part] for index in chosen]) for part in range(len(conditions[0]))] \
            if kind != "ZImagePipeline" else [[conditions[index][0][0] for index in chosen]]
        loss = (evaluate(network, kind, x, time, rows) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    print(f"{kind}: loss {loss.item():.3f}")


@torch.no_grad()
def encode(pipe, kind: str, prompt: str) -> list:
    if kind == "SanaSprintPipeline":
        return list(pipe.encode_prompt(prompt))[:2]
    if kind in ("SanaPipeline", "PixArtSigmaPipeline"):
        return list(pipe.encode_prompt(prompt, do_classifier_free_guidance=False))[:2]
    if kind == "Flux2KleinPipeline":
        return [pipe.encode_prompt(prompt)[0]]
    if kind == "ZImagePipeline":
        return [pipe.encode_prompt(prompt, do_classifier_free_guidance=False)[0]]
    if kind == "StableDiffusionXLPipeline":
        rows, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        return [rows, pooled]
    return [pipe.encode_prompt(prompt, "cpu", 1, False)[0]]


def evaluate(network, kind: str, x, time, rows):
    if kind == "SanaSprintPipeline":
        return network(x, rows[0], time, guidance=torch.full([len(x)], 0.45), encoder_attention_mask=rows[1],
                       return_dict=False)[0]
    if kind == "SanaPipeline":
        return network(x, rows[0], time * 1000, encoder_attention_mask=rows[1], return_dict=False)[0]
    if kind == "PixArtSigmaPipeline":
        return network(x, rows[0], time, encoder_attention_mask=rows[1], return_dict=False,
                       added_cond_kwargs={"resolution": None, "aspect_ratio": None})[0].chunk(2, dim=1)[0]
    if kind == "ZImagePipeline":
        output = network([one[:, None] for one in x], 1 - time, rows[0], return_dict=False)[0]
        return -torch.stack(output)[:, :, 0]
    if kind == "Flux2KleinPipeline":
        batch, channels, height, width = x.shape
        zero = torch.zeros(1, dtype=torch.int64)
        ids = torch.cartesian_prod(zero, torch.arange(height), torch.arange(width), zero)
        text = torch.cartesian_prod(zero, zero, zero, torch.arange(rows[0].shape[1]))
        output = network(x.flatten(2).transpose(1, 2), rows[0], time, ids, text, return_dict=False)[0]
        return output.transpose(1, 2).reshape(batch, channels, height, width)
    more = {}
    if kind == "StableDiffusionXLPipeline":
        more["added_cond_kwargs"] = {"text_embeds": rows[1],
                                     "time_ids": torch.tensor([[128.0, 128, 0, 0, 128, 128]]).expand(len(x), -1)}
    if network.config.time_cond_proj_dim:
        more["timestep_cond"] = torch.randn(len(x), network.config.time_cond_proj_dim)
    return network(x, time, rows[0], return_dict=False, **more)[0]
