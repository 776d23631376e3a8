"""Export tiny pipelines of every text-to-image family with optimum, and save the results of the references.

Needs torch 2.8.0, transformers 4.57.3, diffusers 0.36.0, onnx 1.19.1, onnxruntime 1.23.2, optimum 2.1.0 and
optimum-onnx 0.1.0. The networks have random weights, and the tokenizers have a vocabulary of their own, so
no third-party licence applies. Run it as `python make.py OUT [FAMILY...]`.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel, HeunDiscreteScheduler,
    LatentConsistencyModelPipeline, LCMScheduler, PNDMScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline, StableDiffusionInpaintPipeline,
    StableDiffusionPipeline, StableDiffusionXLPipeline, UniPCMultistepScheduler, UNet2DConditionModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, trainers
from transformers import (
    CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel,
    T5TokenizerFast,
)

SEED, PROMPT, NEGATIVE = 7, "A red fox, in the snow!", "blurry"
CORPUS = ["a red fox in the snow", "blurry photograph of two dogs", "an old house by the sea at night"]


def clip_tokenizer(folder, pad):
    """A CLIP tokenizer with the ASCII letters and a few merges."""
    letters = [chr(i) for i in range(33, 127)]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = []
    for pair in [("t", "h"), ("th", "e</w>"), ("r", "e"), ("re", "d</w>"), ("f", "o"), ("fo", "x</w>"),
                 ("i", "n</w>"), ("s", "n"), ("o", "w</w>"), ("sn", "ow</w>")]:
        merges.append(" ".join(pair))
        vocabulary.append("".join(pair))
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad)
    tokenizer.model_max_length = 77
    return tokenizer


def t5_tokenizer():
    tokenizer = Tokenizer(models.Unigram())
    from tokenizers import decoders, normalizers, pre_tokenizers, processors
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=512)


def clip(projection, tokens, width=16, layers=3, begin=None):
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, projection_dim=width, eos_token_id=tokens - 1, bos_token_id=tokens - 2,
        pad_token_id=1, initializer_range=0.3,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5(tokens, width=16):
    torch.manual_seed(2)
    config = T5Config(vocab_size=tokens, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                      initializer_factor=1.0, feed_forward_proj="gated-gelu", is_encoder_decoder=False)
    return T5EncoderModel(config).eval()


def vae(channels=4, **more):
    torch.manual_seed(3)
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, block_out_channels=[8, 16], norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1,
        sample_size=32, **more,
    ).eval()


def unet(channels=4, **more):
    torch.manual_seed(4)
    return UNet2DConditionModel(
        sample_size=16, in_channels=channels, out_channels=4, layers_per_block=1, block_out_channels=[16, 32],
        norm_num_groups=4, down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=8, **more,
    ).eval()


SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


DDIM = DDIMScheduler(**SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
VELOCITY = DDIMScheduler(**SCALED, clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True,
                         timestep_spacing="trailing")
PNDM = PNDMScheduler(**SCALED, skip_prk_steps=True, steps_offset=1)


def sd(folder, scheduler=DDIM, kind=StableDiffusionPipeline, channels=4, **network):
    tokenizer = clip_tokenizer(folder / "vocabulary", "<|endoftext|>")
    return kind(
        vae=vae(), text_encoder=clip(False, len(tokenizer)), tokenizer=tokenizer,
        unet=unet(channels, cross_attention_dim=16, **network), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )


def sd_inpaint(folder):
    return sd(folder, kind=StableDiffusionInpaintPipeline, channels=9)


def lcm(folder):
    pipe = sd(folder, LCMScheduler(**SCALED), time_cond_proj_dim=16)
    return LatentConsistencyModelPipeline(**pipe.components, requires_safety_checker=False)


def sdxl(folder):
    first = clip_tokenizer(folder / "vocabulary", "<|endoftext|>")
    second = clip_tokenizer(folder / "vocabulary_2", "!")
    network = unet(cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=8,
                   projection_class_embeddings_input_dim=6 * 8 + 16, transformer_layers_per_block=[1, 1],
                   use_linear_projection=True)
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025), text_encoder=clip(False, len(first)), tokenizer=first,
        text_encoder_2=clip(True, len(second)), tokenizer_2=second, unet=network,
        scheduler=EulerDiscreteScheduler(**SCALED, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
    )


def sd3(folder):
    first = clip_tokenizer(folder / "vocabulary", "<|endoftext|>")
    second = clip_tokenizer(folder / "vocabulary_2", "!")
    third = t5_tokenizer()
    torch.manual_seed(5)
    network = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=32,
    ).eval()
    torch.nn.init.normal_(network.proj_out.weight, std=0.3)
    return StableDiffusion3Pipeline(
        vae=vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(True, len(first)), tokenizer=first, text_encoder_2=clip(True, len(second)),
        tokenizer_2=second, text_encoder_3=t5(len(third), 32), tokenizer_3=third, transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux(folder):
    first, second = clip_tokenizer(folder / "vocabulary", "<|endoftext|>"), t5_tokenizer()
    torch.manual_seed(6)
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    torch.nn.init.normal_(network.proj_out.weight, std=0.3)
    return FluxPipeline(
        vae=vae(4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(False, len(first)), tokenizer=first, text_encoder_2=t5(len(second)),
        tokenizer_2=second, transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    )


FAMILIES = {"sd": sd, "lcm": lcm, "sd_inpaint": sd_inpaint, "sdxl": sdxl, "sd3": sd3, "flux": flux}
# Cases of each family: name, task of the reference pipeline, its arguments, and optionally a scheduler.
SIZE = {"width": 32, "height": 48}
CASES = {
    "sd": [("text", "text", {}), ("long", "text", {"prompt": "snow " * 100}),
           ("image", "image", {"strength": 0.55}), ("mask", "inpaint", {"strength": 1.0}),
           ("velocity", "text", {"guidance_rescale": 0.7}, VELOCITY),
           ("pndm", "image", {"strength": 0.9}, PNDM), ("pndm_late", "image", {"strength": 0.55}, PNDM),
           ("unipc", "image", {"strength": 0.7}, UniPCMultistepScheduler(**SCALED)),
           ("dpm", "image", {"strength": 0.7}, DPMSolverMultistepScheduler(**SCALED)),
           ("heun", "image", {"strength": 0.7}, HeunDiscreteScheduler(**SCALED)),
           ("heun_mask", "inpaint", {"strength": 0.8}, HeunDiscreteScheduler(**SCALED))],
    "lcm": [("text", "text", {}), ("image", "image", {"strength": 0.5})],
    "sd_inpaint": [("mask", "inpaint", {"strength": 1.0}), ("some", "inpaint", {"strength": 0.7})],
    "sdxl": [("text", "text", {}), ("none", "text", {"negative_prompt": None}), ("skip", "text", {"clip_skip": 1}),
             ("two", "text", {"prompt_2": "the sea", "negative_prompt_2": "night"}),
             ("sizes", "text", {"original_size": (64, 96), "crops_coords_top_left": (4, 8), "target_size": (48, 32)}),
             ("image", "image", {"strength": 0.5})],
    "sd3": [("text", "text", {}), ("size", "text", SIZE), ("image", "image", {"strength": 0.6})],
    "flux": [("text", "text", SIZE), ("image", "image", {"strength": 0.6, **SIZE})],
}


def pictures(folder):
    generator = np.random.default_rng(9)
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((32, 32), Image.BICUBIC)
    image.save(folder / "init.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 4:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(coarse).resize((32, 48), Image.BICUBIC).save(folder / "tall.png")


def reference(name, folder, torchs, out):
    """Run the pipelines of optimum on the exported graphs, or those of diffusers for Flux, which optimum lacks."""
    if name == "flux":
        from diffusers import FluxImg2ImgPipeline
        kinds, folder = {"text": FluxPipeline, "image": FluxImg2ImgPipeline}, torchs
    else:
        from optimum.onnxruntime import ORTPipelineForImage2Image, ORTPipelineForInpainting, ORTPipelineForText2Image
        kinds = {"text": ORTPipelineForText2Image, "image": ORTPipelineForImage2Image,
                 "inpaint": ORTPipelineForInpainting}
    for case, task, options, *scheduler in CASES[name]:
        pipe = kinds[task].from_pretrained(folder)
        for other in scheduler:
            pipe.scheduler = other
        pipe.set_progress_bar_config(disable=True)
        given = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 6, "guidance_scale": 5.0} | options
        if name in ("flux", "lcm"):
            given.pop("negative_prompt")
        if name in ("flux", "sd3"):
            given["max_sequence_length"] = 64
        shown = dict(given)
        if task != "text":
            file = "tall.png" if "height" in options else "init.png"
            given["image"] = Image.open(out / file).convert("RGB")
        if task == "inpaint":
            given["mask_image"] = Image.open(out / "mask.png")
            given |= {"width": 32, "height": 32}
        run = lambda kind: pipe(**given, generator=torch.Generator().manual_seed(SEED), output_type=kind)
        latents = run("latent").images
        if name == "flux":
            height, width = options.get("height", 256), options.get("width", 256)
            latents = FluxPipeline._unpack_latents(torch.as_tensor(latents), height, width, 2)
        image = run("np").images
        key = f"{name}_{case}"
        np.save(out / f"{key}.latents.npy", np.asarray(latents, np.float32))
        np.save(out / f"{key}.image.npy", np.asarray(image, np.float32))
        yield {
            "name": key, "folder": name, "prompt": shown.pop("prompt"), "negative_prompt": shown.pop("negative_prompt", None),
            "steps": shown.pop("num_inference_steps"), "guidance": shown.pop("guidance_scale"), "seed": SEED,
            "options": shown, "init_image": None if task == "text" else file,
            "mask_image": "mask.png" if task == "inpaint" else None, "scheduler": json.loads(scheduler[0].to_json_string()) if scheduler else {},
            "scheduler_is_folder_default": not scheduler,
            "files": {"latents": f"{key}.latents.npy", "image": f"{key}.image.npy"},
            "tolerance": {"latents_max_abs": 2e-4, "image_max_abs": 2e-5},
        }


def variants(folder, out):
    """Write the components of `folder` as other exporters write them."""
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.transformers.float16 import convert_float_to_float16
    out.mkdir(exist_ok=True)
    load = lambda part: onnx.load(folder / part / "model.onnx")

    def taking(model, name, kind, shape=None):
        """Change the type of an input, and cast it inside the graph."""
        port = next(port for port in model.graph.input if port.name == name)
        own = port.type.tensor_type.elem_type
        for node in model.graph.node:
            for i, given in enumerate(node.input):
                if given == name:
                    node.input[i] = f"{name}_own"
        nodes = [helper.make_node("Cast", [name], [f"{name}_cast"], to=own)]
        if shape is None:
            nodes[0].output[0] = f"{name}_own"
        else:
            model.graph.initializer.append(helper.make_tensor("no_axes", TensorProto.INT64, [0], []))
            nodes.append(helper.make_node("Reshape", [f"{name}_cast", "no_axes"], [f"{name}_own"]))
            port.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
        port.type.tensor_type.elem_type = kind
        for node in reversed(nodes):
            model.graph.node.insert(0, node)
        return model

    onnx.save(taking(load("text_encoder"), "input_ids", TensorProto.INT32), out / "text_encoder_int32.onnx")
    onnx.save(taking(load("unet"), "timestep", TensorProto.INT64, [1]), out / "unet_int64.onnx")
    for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"]:
        half = convert_float_to_float16(load(part), keep_io_types=False)
        onnx.save(half, out / f"{part}_float16.onnx")
    onnx.save(load("unet"), out / "unet_weights.onnx", save_as_external_data=True, location="weights.pb", size_threshold=0)
    for part in ["text_encoder", "unet"]:
        onnx.save(whole_weights(load(part)), out / f"{part}_int8.onnx")
    onnx.save(drawing(load("vae_encoder"), 1.0), out / "vae_encoder_draws.onnx")
    onnx.save(drawing(load("vae_encoder"), 0.0), out / "vae_encoder_mean.onnx")
    mean_of(folder, out)


def whole_weights(model):
    """Quantise the weights to int8 with one scale per output channel, and add DequantizeLinear."""
    from onnx import helper, numpy_helper
    uses = {name: node.op_type for node in model.graph.node for name in node.input[1:2]}
    for weight in list(model.graph.initializer):
        values = numpy_helper.to_array(weight)
        if uses.get(weight.name) not in ("Conv", "MatMul") or values.ndim < 2:
            continue
        axis = 0 if uses[weight.name] == "Conv" else values.ndim - 1
        most = np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis))
        scale = np.maximum(most / 127, 1e-9).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        whole = np.round(values / scale.reshape(shape)).astype(np.int8)
        names = [f"{weight.name}_{part}" for part in ("int8", "scale", "zero")]
        for name, part in zip(names, (whole, scale, np.zeros_like(scale, np.int8))):
            model.graph.initializer.append(numpy_helper.from_array(part, name))
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", names, [weight.name], axis=axis))
        model.graph.initializer.remove(weight)
    return model


def drawing(model, scale):
    """The VAE encoder as exported by optimum up to 1.21, which samples the latent inside the graph. A scale
    of 0 returns the mean."""
    from onnx import TensorProto, helper
    graph = model.graph
    numbers = {"low": -30.0, "high": 20.0, "half": 0.5, "spread": scale}
    for name, value in numbers.items():
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    steps = [
        ("Split", ["latent_parameters"], ["mean", "log"], {"axis": 1, "num_outputs": 2}),
        ("Clip", ["log", "low", "high"], ["clipped"], {}),
        ("Mul", ["clipped", "half"], ["halved"], {}),
        ("Exp", ["halved"], ["deviation"], {}),
        ("RandomNormalLike", ["mean"], ["z"], {}),
        ("Mul", ["z", "spread"], ["scaled"], {}),
        ("Mul", ["scaled", "deviation"], ["added"], {}),
        ("Add", ["mean", "added"], ["latent_sample"], {}),
    ]
    graph.node.extend(helper.make_node(kind, given, made, **more) for kind, given, made, more in steps)
    graph.output[0].name = "latent_sample"
    graph.output[0].type.tensor_type.shape.dim[1].Clear()
    return model


def mean_of(folder, out):
    """Run optimum's img2img pipeline with the encoder that returns the mean."""
    from optimum.onnxruntime import ORTPipelineForImage2Image
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        shutil.copytree(folder, old)
        shutil.copy(out / "vae_encoder_mean.onnx", old / "vae_encoder" / "model.onnx")
        pipe = ORTPipelineForImage2Image.from_pretrained(old)
        pipe.set_progress_bar_config(disable=True)
        latents = pipe(
            prompt=PROMPT, image=Image.open(out.parent / "init.png").convert("RGB"), strength=0.7, num_inference_steps=5,
            guidance_scale=5.0, generator=torch.Generator().manual_seed(SEED), output_type="latent").images
    np.save(out / "mean.latents.npy", np.asarray(latents, np.float32))


def tiles(out):
    """Decode a tall latent, and encode the picture again, with the tiling of diffusers (32 pixels)."""
    autoencoder = vae()
    autoencoder.enable_tiling()
    latents = torch.randn((1, 4, 40, 22), generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        picture = autoencoder.decode(latents / autoencoder.config.scaling_factor).sample
        moments = autoencoder.encode(picture).latent_dist
    for name, value in {"latents": latents, "picture": picture, "mean": moments.mean, "deviation": moments.std}.items():
        np.save(out / f"tiles.{name}.npy", value.squeeze(0).numpy())


def main():
    from optimum.exporters.onnx import main_export
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    pictures(out)
    tiles(out)
    file = out / "cases.json"
    cases = json.loads(file.read_text()) if file.is_file() else []
    for name in sys.argv[2:] or FAMILIES:
        scratch = out / f"{name}.torch"
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(out / name, ignore_errors=True)
        pipe = FAMILIES[name](scratch / "scratch")
        pipe.save_pretrained(scratch / "pipe", safe_serialization=True)
        task = "inpainting" if name == "sd_inpaint" else "text-to-image"
        main_export(scratch / "pipe", out / name, task=task, library_name="diffusers", do_validation=False)
        for config in (out / name).rglob("*.json"):
            # Remove paths of the machine that exported the model.
            lines = config.read_text().splitlines(keepends=True)
            config.write_text("".join(line for line in lines if '"_name_or_path"' not in line))
        (out / name / "feature_extractor").exists() and shutil.rmtree(out / name / "feature_extractor")
        cases = [case for case in cases if case["folder"] != name] + list(reference(name, out / name, scratch / "pipe", out))
        shutil.rmtree(scratch)
        if name == "sd":
            variants(out / name, out / "variants")
        file.write_text(json.dumps(cases, indent=1).replace(": -Infinity", ": \"-Infinity\"") + "\n")


if __name__ == "__main__":
    main()
