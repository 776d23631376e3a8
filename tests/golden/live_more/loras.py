"""Writes the LoRA files, with random weights: PEFT and diffusers, Kohya's names, and LyCORIS."""

from pathlib import Path

import lycoris.kohya
import torch
import transformers.integrations.peft
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from lycoris.config import PRESET
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

# transformers 5.24 asks for a newer PEFT than any that was released by then.
transformers.integrations.peft.MIN_PEFT_VERSION = "0.21.0"
# LyCORIS also lists the layers of this class by their names, and refuses layers that it finds twice.
PRESET["full"]["unet_target_module"].remove("TimestepEmbedding")
lycoris.kohya.LycorisNetworkKohya.apply_preset(PRESET["full"])

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
BLOCK = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
LYCORIS = ("locon", "loha", "lokr")


def write(folder: Path, load) -> None:
    """Writes every file; `load` returns a new pipeline of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    peft(folder / "peft_alphas.safetensors", load("sd"))
    kohya(folder / "kohya_r3.safetensors", load("sd"), 3, 2.0)
    kohya(folder / "xl_kohya.safetensors", load("xl"), 2, 1.5)
    for kind in LYCORIS:
        lycoris_file(folder / f"{kind}.safetensors", load("sd"), kind)


def peft(path: Path, pipe) -> None:
    """As diffusers saves the adapters of PEFT: the scales are in the file's metadata, and differ by layer."""
    torch.manual_seed(30)
    pipe.unet.add_adapter(LoraConfig(
        r=4, lora_alpha=6, target_modules=ATTENTION, init_lora_weights="gaussian",
        rank_pattern={"attn2.to_q": 2}, alpha_pattern={"attn2.to_q": 1, "attn1.to_v": 8}))
    pipe.text_encoder.add_adapter(LoraConfig(
        r=3, lora_alpha=2, target_modules=["q_proj", "fc1"], init_lora_weights="gaussian"))
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    for part in parts.values():
        part.peft_config["default"].base_model_name_or_path = None
    layers = {name: fill(get_peft_model_state_dict(part, adapter_name="default")) for name, part in parts.items()}
    StableDiffusionPipeline.save_lora_weights(
        path.parent, layers["unet"], text_encoder_lora_layers=layers["text_encoder"], weight_name=path.name,
        **_collate_lora_metadata(parts))


def kohya(path: Path, pipe, rank: int, alpha: float) -> None:
    """As Kohya's scripts: half precision, α for each layer; of SDXL with the names of the original code."""
    torch.manual_seed(31)
    is_xl = hasattr(pipe, "text_encoder_2")
    tensors = {}
    for part, prefix, endings in (
            ("unet", "lora_unet_", BLOCK),
            ("text_encoder", "lora_te1_text_model_" if is_xl else "lora_te_text_model_", TEXT),
            ("text_encoder_2", "lora_te2_text_model_", TEXT)):
        for name, layer in getattr(pipe, part, torch.nn.Module()).named_modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and name.endswith(tuple(endings)):
                name = original(name) if is_xl and part == "unet" else name.removeprefix("text_model.")
                outputs, inputs, *kernel = layer.weight.shape
                key = prefix + name.replace(".", "_")
                tensors[f"{key}.lora_down.weight"] = torch.randn(rank, inputs, *kernel) / inputs ** 0.5
                tensors[f"{key}.lora_up.weight"] = torch.randn(outputs, rank, *kernel) * 0.4
                tensors[f"{key}.alpha"] = torch.tensor(alpha)
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)


def original(name: str) -> str:
    """The name in the original code of a layer of an attention, in a network with one layer a block."""
    place, _, layer = name.partition(".attentions.")
    index, _, layer = layer.partition(".")
    kind, block = place.split(".") if "." in place else (place, "0")
    number = {"down_blocks": 1 + 2 * int(block) + int(index), "up_blocks": 2 * int(block) + int(index)}
    block = {"down_blocks": "input_blocks", "up_blocks": "output_blocks", "mid_block": "middle_block"}[kind]
    return f"{block}_1.{layer}" if kind == "mid_block" else f"{block}_{number[kind]}_1.{layer}"


def lycoris_file(path: Path, pipe, kind: str) -> None:
    """As LyCORIS saves its networks, with convolutions."""
    torch.manual_seed(32)
    network = lycoris.kohya.create_network(
        1.0, 2, 1.0, None, pipe.text_encoder, pipe.unet, algo=kind, conv_dim=2, conv_alpha=1.5, factor=2)
    network.apply_to(pipe.text_encoder, pipe.unet, True, True)
    save_file({name: tensor.half().contiguous() for name, tensor in fill(network.state_dict()).items()}, path)


def fill(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Random numbers of half precision for all tensors but α, so large that a picture changes."""
    return {name: tensor if name.endswith("alpha") else (0.35 * torch.randn(tensor.shape)).half().float()
            for name, tensor in tensors.items()}


def apply(pipe, folder: Path, loras: list[tuple[str, float]], merge: bool = False) -> None:
    """Adds LoRAs by the code of diffusers and LyCORIS, or merges them into the weights if `merge` is set."""
    files = {name: folder / f"{name}.safetensors" for name, _ in loras}
    others = {name: weight for name, weight in loras if name not in LYCORIS}
    for name in others:
        pipe.load_lora_weights(folder, weight_name=files[name].name, adapter_name=name)
    if others:
        pipe.set_adapters(list(others), list(others.values()))
        if merge:
            parts = [name for name in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipe, name)]
            pipe.fuse_lora(parts, adapter_names=list(others))
            pipe.unload_lora_weights()
    for name, weight in loras:
        if name in LYCORIS:
            tensors = {key: tensor.float() for key, tensor in load_file(files[name]).items()}
            (merge_lycoris if merge else add_lycoris)(pipe, tensors, weight)


def add_lycoris(pipe, tensors: dict[str, torch.Tensor], weight: float) -> None:
    network, _ = lycoris.kohya.create_network_from_weights(weight, None, None, pipe.text_encoder, pipe.unet, tensors)
    network.apply_to(pipe.text_encoder, pipe.unet, True, True)


@torch.no_grad()
def merge_lycoris(pipe, tensors: dict[str, torch.Tensor], weight: float) -> None:
    """By the formulas, because `merge_to` of LyCORIS 4.1.3 multiplies LoHa and LoKr by α/rank twice."""
    for part, prefix in ((pipe.unet, "lora_unet_"), (pipe.text_encoder, "lora_te_")):
        for name, layer in part.named_modules():
            beginning = prefix + name.replace(".", "_") + "."
            own = {key.removeprefix(beginning): tensor.flatten(1) if tensor.ndim > 1 else tensor
                   for key, tensor in tensors.items() if key.startswith(beginning)}
            if own:
                layer.weight += weight * product(own).reshape(layer.weight.shape)


def product(own: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns what the matrices of a layer add to its weight."""
    if "lora_up.weight" in own:
        return own["lora_up.weight"] @ own["lora_down.weight"] * own["alpha"] / len(own["lora_down.weight"])
    if "hada_w1_a" in own:
        first, second = (own[f"hada_w{i}_a"] @ own[f"hada_w{i}_b"] for i in (1, 2))
        return first * second * own["alpha"] / len(own["hada_w1_b"])
    if "lokr_w2" in own:
        return torch.kron(own["lokr_w1"], own["lokr_w2"])
    second = own["lokr_w2_a"] @ own["lokr_w2_b"]
    return torch.kron(own["lokr_w1"], second) * own["alpha"] / len(own["lokr_w2_b"])
