"""The networks of `models/emoji`, as classes of diffusers and transformers."""

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

LENGTH = 24  # tokens of a prompt
WIDTH = 128  # of a token's embedding

SCHEDULER = dict(
    num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=1e-4, beta_end=0.02,
    prediction_type="v_prediction", timestep_spacing="trailing",
)


def scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(**SCHEDULER)


# Widths of the autoencoder; widths, layers and blocks (with attention or not) of the U-Net.
SIZES = {
    "full": {"autoencoder": (32, 48, 48), "widths": (96, 96), "layers": 2, "attends": (True, True)},
    "small": {"autoencoder": (16, 32, 48), "widths": (48, 96, 160), "layers": 1, "attends": (False, True, False)},
}


def autoencoder(size: str) -> AutoencoderKL:
    """64×64×3 to 16×16×4 and back."""
    return AutoencoderKL(
        sample_size=64, latent_channels=4, block_out_channels=SIZES[size]["autoencoder"], layers_per_block=1,
        norm_num_groups=8, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )


def text_encoder(vocabulary: int) -> CLIPTextModel:
    """Two layers over the tokens of a prompt. The last two tokens are start and end."""
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH, hidden_act="gelu",
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    ))


def unet(size: str) -> UNet2DConditionModel:
    """v_θ(x_t, t, prompt) on 16×16×4."""
    widths, layers, attends = (SIZES[size][key] for key in ("widths", "layers", "attends"))
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=widths, layers_per_block=layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=16,
        # The prompt as a whole joins the time embedding, so that every layer knows it, also those without attention.
        addition_embed_type="text", addition_embed_type_num_heads=4,
    )


class Classifier(nn.Module):
    """A small residual network over the pictures, independent of the generator.

    Returns features [N, 128], and logits of the category, the subcategory and the emoji.
    """

    def __init__(self, categories: int, subcategories: int, emoji: int):
        super().__init__()
        widths = [32, 64, 128, 192]
        self.enter = nn.Conv2d(3, widths[0], 3, padding=1)
        stages = []
        for before, after in zip([widths[0], *widths], widths):
            stages += [nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()),
                Residual(after)]
        self.stages = nn.Sequential(*stages)
        self.features = nn.Linear(widths[-1], 128)
        self.heads = nn.ModuleList(nn.Linear(128, n) for n in (categories, subcategories, emoji))

    def forward(self, pictures):
        features = self.features(self.stages(self.enter(pictures)).mean((2, 3)))
        return features, [head(features.relu()) for head in self.heads]


class Residual(nn.Module):
    """x + two convolutions with batch norm."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x):
        return (x + self.inner(x)).relu()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    for size in SIZES:
        for name, network in {"autoencoder": autoencoder(size), "U-Net": unet(size)}.items():
            print(f"{size} {name}: {parameters(network):,} parameters")
    print(f"text encoder: {parameters(text_encoder(3200)):,} parameters")
