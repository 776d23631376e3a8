"""Makes tiny diffusers folders with random weights: `python tiny.py FAMILY OUT [STEPS]`.

The networks are trained for a moment on synthetic latents, so that sampling stays in a natural range and prompts
matter. All weights are numbers of half precision. No third-party weights are used.
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2

import tiny_tokenizers as tokenizers
from tiny_training import train

SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
BLOCKS = 4


def gemma(tokens: int):
    torch.manual_seed(1)
    return transformers.Gemma2Model(transformers.Gemma2Config(
        vocab_size=tokens, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, initializer_range=0.3, pad_token_id=0,
        eos_token_id=1, bos_token_id=2)).eval()


def qwen(tokenizer, layers: int, width: int, whole: bool):
    torch.manual_seed(2)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=1, num_key_value_heads=1, head_dim=16, initializer_range=0.25, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    return (transformers.Qwen3ForCausalLM if whole else transformers.Qwen3Model)(config).eval()


def t5(tokens: int, width: int = 24):
    torch.manual_seed(3)
    return transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=tokens, d_model=width, d_kv=12, d_ff=48, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False)).eval()


def clip(tokens: int, projection: bool = False, act: str = "quick_gelu"):
    torch.manual_seed(4 + projection)
    config = transformers.CLIPTextConfig(
        vocab_size=tokens, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=16, hidden_act=act, initializer_range=0.3, eos_token_id=tokens - 1, bos_token_id=tokens - 2)
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).eval()


def vae(channels: int, kind=AutoencoderKL, blocks: int = BLOCKS, **more):
    """An autoencoder that divides sides by 2^(blocks − 1), whose pictures are mostly between black and white."""
    torch.manual_seed(6)
    made = kind(
        latent_channels=channels, block_out_channels=[8] * blocks, norm_num_groups=4, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks,
        sample_size=64, **more).eval()
    spread = 1 / more.get("scaling_factor", 1.0)
    with torch.no_grad():
        latent = torch.randn(1, channels, 8, 8) * spread
        rescale(made.decoder.conv_out, made.decode(latent).sample, 0.5)
        mean = made.encode(torch.rand(1, 3, 64, 64) * 2 - 1).latent_dist.mean
        rescale(made.encoder.conv_out, mean, spread)
    return made


def deep_compression():
    torch.manual_seed(7)
    made = AutoencoderDC(
        latent_channels=8, attention_head_dim=8, encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
        encoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",),
        decoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",), encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6, encoder_qkv_multiscales=((),) * 5 + ((5,),),
        decoder_qkv_multiscales=((),) * 5 + ((5,),), scaling_factor=0.41407).eval()
    with torch.no_grad():
        rescale(made.decoder.conv_out, made.decode(torch.randn(1, 8, 4, 4) / 0.41407).sample, 0.5)
    return made


def rescale(layer: torch.nn.Module, output: torch.Tensor, deviation: float) -> None:
    """Scales a last layer so that its output has this standard deviation."""
    layer = getattr(layer, "conv", layer)
    for parameter in layer.parameters():
        parameter.mul_(deviation / output.std())


def sana_sprint(folder: Path):
    tokenizer = tokenizers.gemma(folder / "tokenizer")
    torch.manual_seed(10)
    return diffusers.SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=gemma(len(tokenizer)), vae=deep_compression(),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32,
            guidance_embeds=True, qk_norm="rms_norm_across_heads", sample_size=32, timestep_scale=1000.0),
        scheduler=diffusers.SCMScheduler())


def sana(folder: Path):
    tokenizer = tokenizers.gemma(folder / "tokenizer")
    torch.manual_seed(10)
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=gemma(len(tokenizer)), vae=deep_compression(),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32,
            sample_size=32),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0))


def pixart_sigma(folder: Path):
    tokenizer = tokenizers.t5(folder / "tokenizer")
    torch.manual_seed(11)
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer, text_encoder=t5(len(tokenizer)), vae=vae(4, scaling_factor=0.13025),
        transformer=diffusers.PixArtTransformer2DModel(
            in_channels=4, out_channels=8, num_attention_heads=2, attention_head_dim=16, num_layers=2,
            cross_attention_dim=32, caption_channels=24, sample_size=16, use_additional_conditions=False),
        scheduler=diffusers.DPMSolverMultistepScheduler())


def flux2_klein(folder: Path, distilled: bool = True):
    tokenizer = tokenizers.qwen(folder / "tokenizer")
    autoencoder = vae(32, AutoencoderKLFlux2)
    with torch.no_grad():
        autoencoder.bn.running_mean.normal_(0, 0.3)
        autoencoder.bn.running_var.uniform_(0.5, 2.0)
    torch.manual_seed(12)
    return diffusers.Flux2KleinPipeline(
        tokenizer=tokenizer, text_encoder=qwen(tokenizer, 28, 16, True), vae=autoencoder,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=128, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=48, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, time_shift_type="exponential"),
        is_distilled=distilled)


def flux2_klein_base(folder: Path):
    return flux2_klein(folder, distilled=False)


def z_image(folder: Path, shift: float = 6.0):
    tokenizer = tokenizers.qwen(folder / "tokenizer")
    torch.manual_seed(13)
    return diffusers.ZImagePipeline(
        tokenizer=tokenizer, text_encoder=qwen(tokenizer, 4, 24, False),
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=16, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=24,
            axes_dims=[4, 6, 6], axes_lens=[640, 64, 64]),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift))


def z_image_turbo(folder: Path):
    return z_image(folder, shift=3.0)


def unet(seed: int, cross: int, **more):
    torch.manual_seed(seed)
    return diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=[8, 16],
        norm_num_groups=4, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=8, cross_attention_dim=cross, **more)


def controlnet(network, seed: int):
    """A ControlNet with the weights of a U-Net. Layers that are zeros before training are not."""
    torch.manual_seed(seed)
    made = diffusers.ControlNetModel.from_unet(network, conditioning_embedding_out_channels=(4, 8, 8, 8))
    for name, parameter in made.named_parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
        elif name.startswith("controlnet_cond_embedding"):
            parameter.data.mul_(2)
        parameter.data = parameter.data.half().float()
    return made.eval()


def sd_turbo(folder: Path):
    tokenizer = tokenizers.clip(folder / "tokenizer", pad="!")
    return diffusers.StableDiffusionPipeline(
        tokenizer=tokenizer, text_encoder=clip(len(tokenizer), act="gelu"), vae=vae(4, scaling_factor=0.18215),
        unet=unet(14, 16), scheduler=diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="trailing"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def lcm(folder: Path):
    tokenizer = tokenizers.clip(folder / "tokenizer")
    return diffusers.LatentConsistencyModelPipeline(
        tokenizer=tokenizer, text_encoder=clip(len(tokenizer)), vae=vae(4, scaling_factor=0.18215),
        unet=unet(15, 16, time_cond_proj_dim=32), scheduler=diffusers.LCMScheduler(**SCALED), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


def sdxl_turbo(folder: Path, scheduler=None):
    first, second = tokenizers.clip(folder / "tokenizer"), tokenizers.clip(folder / "tokenizer_2", pad="!")
    network = unet(16, 32, addition_embed_type="text_time", addition_time_embed_dim=8, use_linear_projection=True,
                   projection_class_embeddings_input_dim=6 * 8 + 16, transformer_layers_per_block=[1, 1])
    return diffusers.StableDiffusionXLPipeline(
        tokenizer=first, tokenizer_2=second, text_encoder=clip(len(first)),
        text_encoder_2=clip(len(second), projection=True, act="gelu"), vae=vae(4, scaling_factor=0.13025), unet=network,
        scheduler=scheduler or diffusers.EulerAncestralDiscreteScheduler(**SCALED, timestep_spacing="trailing"),
        force_zeros_for_empty_prompt=True)


def sd3(folder: Path):
    first, second = tokenizers.clip(folder / "tokenizer"), tokenizers.clip(folder / "tokenizer_2", pad="!")
    third = tokenizers.t5(folder / "tokenizer_3")
    encoder = t5(len(third), width=32)
    encoder.resize_token_embeddings(len(third))
    torch.manual_seed(17)
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=first, tokenizer_2=second, tokenizer_3=third, text_encoder=clip(len(first), projection=True),
        text_encoder_2=clip(len(second), projection=True), text_encoder_3=encoder,
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
            pos_embed_max_size=32, qk_norm="rms_norm"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))


def flux(folder: Path):
    first, second = tokenizers.clip(folder / "tokenizer"), tokenizers.t5(folder / "tokenizer_2")
    torch.manual_seed(18)
    return diffusers.FluxPipeline(
        tokenizer=first, tokenizer_2=second, text_encoder=clip(len(first)), text_encoder_2=t5(len(second)),
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=16, guidance_embeds=True,
            axes_dims_rope=(4, 6, 6)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0))


FAMILIES = {made.__name__: made for made in (
    sana_sprint, pixart_sigma, flux2_klein, flux2_klein_base, z_image, z_image_turbo, sd_turbo, sdxl_turbo, lcm, sana,
    sd3, flux)}


# Families whose network tiny_training.py does not train.
UNTRAINED = {"sd3", "flux"}


def make(family: str, folder: Path, steps: int = 0) -> None:
    """Writes the folder of `family`, with its network trained for `steps` steps."""
    shutil.rmtree(folder, ignore_errors=True)
    scratch = folder.with_name(folder.name + ".tokenizers")
    pipe = FAMILIES[family](scratch)
    if steps:
        train(pipe, steps)
    with torch.no_grad():
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                for tensor in [*part.parameters(), *part.buffers()]:
                    if tensor.is_floating_point():
                        tensor.copy_(tensor.half().float())
    pipe.save_pretrained(folder)
    # The tokenizers as released models have them, not as this version of transformers saves them.
    shutil.copytree(scratch, folder, dirs_exist_ok=True)
    shutil.rmtree(scratch)
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text())
        if content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES, metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; what it holds is removed")
    parser.add_argument("steps", type=int, nargs="?", default=0, metavar="STEPS", help="steps of training [default: 0]")
    given = parser.parse_args()
    if given.steps and given.family in UNTRAINED:
        parser.error(f"{given.family} can't be trained here; leave STEPS out")
    torch.set_num_threads(1)
    make(given.family, given.out, given.steps)
