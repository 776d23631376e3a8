"""The pipelines that can be exported: what a folder of each holds, and which sizes its graphs take."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import autoencoders
import cross_attention
import flux2
import mmdit
import unet
import z_image
from graphs import Graph, Options, declares

AUTOENCODER_GRAPHS = ["vae_decoder", "vae_encoder"]
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


@dataclass(frozen=True)
class Family:
    """`text_encoders` maps folders to the `model_type` of transformers; those in `optional` may be left out.

    Sides in latents are multiples of the network's patch size times `packing`.
    """

    graphs: Callable[[Path, Options], Iterator[Graph]]
    network: str
    text_encoders: dict[str, str]
    optional: tuple[str, ...] = ()
    autoencoder: str = "AutoencoderKL"
    packing: int = 1

    @property
    def network_folder(self) -> str:
        return "unet" if self.network == "UNet2DConditionModel" else "transformer"

    def encoders(self, model: Path) -> list[str]:
        return [name for name in self.text_encoders if name not in self.optional or declares(model, name)]

    def graph_folders(self, model: Path) -> list[str]:
        """Returns the folders of the graphs in the order of their export."""
        return [*self.encoders(model), self.network_folder, *AUTOENCODER_GRAPHS]

    def side_multiple(self, model: Path) -> int:
        """Returns the number of pixels of which a side is a multiple."""
        config = json.loads((model / self.network_folder / "config.json").read_text())
        patch = config.get("all_patch_size", [config.get("patch_size") or 1])[0]
        return autoencoders.factor(autoencoders.read_config(model)) * patch * self.packing


CLIP, T5 = "clip_text_model", "t5"
SD = Family(unet.stable_diffusion, "UNet2DConditionModel", {"text_encoder": CLIP})
SDXL = Family(unet.stable_diffusion_xl, "UNet2DConditionModel", {"text_encoder": CLIP, "text_encoder_2": CLIP},
              optional=("text_encoder",))
SANA = Family(cross_attention.sana, "SanaTransformer2DModel", {"text_encoder": "gemma2"}, autoencoder="AutoencoderDC")
FAMILIES = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionInpaintPipeline": SD,
    "LatentConsistencyModelPipeline": SD,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLImg2ImgPipeline": SDXL,
    "StableDiffusionXLInpaintPipeline": SDXL,
    "StableDiffusion3Pipeline": Family(
        mmdit.stable_diffusion_3, "SD3Transformer2DModel",
        {"text_encoder": CLIP, "text_encoder_2": CLIP, "text_encoder_3": T5}, optional=("text_encoder_3",)),
    "FluxPipeline": Family(mmdit.flux, "FluxTransformer2DModel", {"text_encoder": CLIP, "text_encoder_2": T5},
                           packing=2),
    "SanaPipeline": SANA,
    "SanaSprintPipeline": SANA,
    "PixArtSigmaPipeline": Family(cross_attention.pixart_sigma, "PixArtTransformer2DModel", {"text_encoder": T5}),
    "ZImagePipeline": Family(z_image.z_image, "ZImageTransformer2DModel", {"text_encoder": "qwen3"}),
    "Flux2KleinPipeline": Family(flux2.klein, "Flux2Transformer2DModel", {"text_encoder": "qwen3"},
                                 autoencoder="AutoencoderKLFlux2", packing=2),
}
