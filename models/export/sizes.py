"""Computes the size of each graph of the models in docs/models.md, without weights: `python sizes.py`.

The architectures are made without memory. float16 counts 2 bytes a parameter, and 4 where the export keeps float32: some
autoencoders, and `wo` of T5. int4 counts 4.5 bits (8.5 for int8) for the weights of linear layers in text encoders and
the network, because each block of 32 has a scale. Embeddings, convolutions and autoencoders are not quantised. Linear
layers that are no MatMul in the graph, as those of time embeddings, are not either, but count as quantised here.
"""

import torch
import diffusers
import transformers
from accelerate import init_empty_weights

XL_UNET = dict(
    sample_size=128, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], block_out_channels=[320, 640, 1280],
    transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], cross_attention_dim=2048,
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816)
DC_AE = dict(
    latent_channels=32, attention_head_dim=32, encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
    decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024), encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
    decoder_layers_per_block=(3,) * 6, downsample_block_type="Conv", upsample_block_type="interpolate",
    encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
    decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)))


def clip(width, inner, layers, heads, projection=0):
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        projection_dim=projection or width)
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def t5():
    return transformers.T5EncoderModel(transformers.T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu", vocab_size=32128,
        is_encoder_decoder=False, use_cache=False))


def gemma():
    return transformers.Gemma2Model(transformers.Gemma2Config())


def qwen(layers):
    return transformers.Qwen3Model(transformers.Qwen3Config(
        vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128))


def vae(channels, kind=diffusers.AutoencoderKL, **more):
    return kind(
        latent_channels=channels, block_out_channels=[128, 256, 512, 512], layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **more)


def clip_l():
    return clip(768, 3072, 12, 12)


def clip_l_projected():
    return clip(768, 3072, 12, 12, 768)


def clip_g():
    return clip(1280, 5120, 32, 20, 1280)


def wide_vae():
    return vae(16, use_quant_conv=False, use_post_quant_conv=False)


def flux2_vae():
    return vae(32, diffusers.AutoencoderKLFlux2)


def dc_ae():
    return diffusers.AutoencoderDC(**DC_AE)


def sana(layers, heads, cross, guidance=False):
    return diffusers.SanaTransformer2DModel(
        num_layers=layers, num_attention_heads=heads, attention_head_dim=32, num_cross_attention_heads=cross,
        cross_attention_head_dim=heads * 32 // cross, cross_attention_dim=heads * 32, guidance_embeds=guidance,
        qk_norm="rms_norm_across_heads" if guidance else None)


def sd3(layers, heads, dual):
    return diffusers.SD3Transformer2DModel(
        num_layers=layers, num_attention_heads=heads, attention_head_dim=64, joint_attention_dim=4096,
        caption_projection_dim=64 * heads, pooled_projection_dim=2048, in_channels=16, out_channels=16, sample_size=128,
        pos_embed_max_size=384 if dual else 192, qk_norm="rms_norm", dual_attention_layers=tuple(range(dual)))


def sd2_unet():
    return diffusers.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)


MODELS = {
    "Stable Diffusion 1.5, LCM": ([clip_l], lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
                                  lambda: vae(4), 2),
    "SD-Turbo": ([lambda: clip(1024, 4096, 23, 16)], sd2_unet, lambda: vae(4), 2),
    "SDXL, SDXL-Turbo, Lightning, Hyper-SD": ([clip_l, clip_g], lambda: diffusers.UNet2DConditionModel(**XL_UNET),
                                              lambda: vae(4), 4),
    "Stable Diffusion 3.5 Medium": ([clip_l_projected, clip_g, t5], lambda: sd3(24, 24, 13), wide_vae, 2),
    "Stable Diffusion 3.5 Large": ([clip_l_projected, clip_g, t5], lambda: sd3(38, 38, 0), wide_vae, 2),
    "FLUX.1-schnell": ([clip_l, t5], lambda: diffusers.FluxTransformer2DModel(), wide_vae, 2),
    "FLUX.1-dev": ([clip_l, t5], lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), wide_vae, 2),
    "SANA 0.6B, SANA-Sprint 0.6B": ([gemma], lambda: sana(28, 36, 16), dc_ae, 4),
    "SANA 1.6B, SANA-Sprint 1.6B": ([gemma], lambda: sana(20, 70, 20), dc_ae, 4),
    "PixArt-Sigma": ([t5], lambda: diffusers.PixArtTransformer2DModel(
        sample_size=128, use_additional_conditions=False), lambda: vae(4), 4),
    "Z-Image": ([lambda: qwen(35)], lambda: diffusers.ZImageTransformer2DModel(), wide_vae, 2),
    "FLUX.2 klein 4B": ([lambda: qwen(27)], lambda: diffusers.Flux2Transformer2DModel(
        num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False),
        flux2_vae, 2),
}


def parameters(module, part=None) -> tuple[int, int, int]:
    """Returns the number of parameters, of weights of linear layers, and of those which stay float32."""
    module = getattr(module, part) if part else module
    linear = {name: layer.weight.numel() for name, layer in module.named_modules()
              if isinstance(layer, torch.nn.Linear)}
    wide = sum(count for name, count in linear.items() if name.endswith(".wo"))
    # T5's embedding has two names.
    every = sum(weight.numel() for name, weight in module.named_parameters()
                if not name.endswith("encoder.embed_tokens.weight"))
    return every, sum(linear.values()), wide


def gigabytes(found: tuple[int, int, int], width: int, bits: float | None = None) -> float:
    every, linear, wide = found
    if bits is None:
        return (every * width + wide * (4 - width)) / 1e9
    # A scale is as wide as the weight that it replaces.
    return ((every - linear) * width + linear * bits / 8 + wide * (4 - width) / 32) / 1e9


def main() -> None:
    print("| model | graph | parameters | float16 | int8 | int4 |\n|---|---|---|---|---|---|")
    for name, (encoders, network, autoencoder, width) in MODELS.items():
        with init_empty_weights():
            graphs = {f"text_encoder{f'_{place}' if place > 1 else ''}": parameters(make())
                      for place, make in enumerate(encoders, 1)}
            graphs["network"] = parameters(network())
            graphs |= {f"vae_{part}": parameters(autoencoder(), part) for part in ("decoder", "encoder")}
        for graph, found in graphs.items():
            sizes = [gigabytes(found, width if graph.startswith("vae") else 2)]
            if not graph.startswith("vae"):
                sizes += [gigabytes(found, 2, 8.5), gigabytes(found, 2, 4.5)]
            cells = [f"{size:.2f}" for size in sizes] + ["–"] * (3 - len(sizes))
            print(f"| {name} | {graph} | {found[0] / 1e6:.0f} M | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
