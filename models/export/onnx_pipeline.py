"""Makes a diffusers pipeline compute with exported graphs, to compare them with torch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, EncoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from autoencoders import batch_norm, patchify, unpatchify

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


class Session:
    """An ONNX graph that takes and returns tensors. Inputs are cast to the types of the graph."""

    def __init__(self, path: Path, threads: int = 1):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def __call__(self, **given) -> dict[str, torch.Tensor]:
        feed = {}
        for port in self.session.get_inputs():
            feed[port.name] = torch.as_tensor(given[port.name]).detach().numpy().astype(TYPES[port.type])
        names = [port.name for port in self.session.get_outputs()]
        return {name: torch.from_numpy(np.asarray(value)).float()
                for name, value in zip(names, self.session.run(names, feed))}

    def only(self, **given) -> torch.Tensor:
        return next(iter(self(**given).values()))


def attach(pipe, folder: Path) -> None:
    """Replaces the computation of every component of `pipe` by its graph in `folder`."""
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if getattr(pipe, name, None) is not None:
            attach_text_encoder(pipe, getattr(pipe, name), Session(folder / name / "model.onnx"))
    if getattr(pipe, "unet", None) is not None:
        attach_unet(pipe.unet, Session(folder / "unet" / "model.onnx"))
    else:
        attach_transformer(pipe.transformer, Session(folder / "transformer" / "model.onnx"))
    attach_autoencoder(pipe.vae, Session(folder / "vae_decoder" / "model.onnx"),
                       Session(folder / "vae_encoder" / "model.onnx"))


def attach_text_encoder(pipe, encoder, session: Session) -> None:
    kind = type(pipe).__name__

    def forward(input_ids, attention_mask=None, **_):
        output = session(input_ids=input_ids, attention_mask=torch.ones_like(input_ids) if attention_mask is None
                         else attention_mask)
        rows = output.get("last_hidden_state", output.get("prompt_embeds"))
        hidden = [output[name] for name in sorted((name for name in output if name.startswith("hidden_states.")),
                                                  key=lambda name: int(name.split(".")[1]))]
        if kind.startswith("ZImage"):
            hidden = [rows, None]
        elif kind.startswith("Flux2Klein"):
            hidden = dict(zip((9, 18, 27), rows.chunk(3, dim=-1)))
        return TextOutput(last_hidden_state=rows, hidden_states=hidden, text_embeds=output.get("text_embeds"),
                          pooler_output=output.get("pooler_output"))

    encoder.forward = forward


class TextOutput(SimpleNamespace):
    """The output of a text encoder; its first element is the projected row or else the last hidden state."""

    def __getitem__(self, index):
        first = self.last_hidden_state if self.text_embeds is None else self.text_embeds
        return (first, self.pooler_output)[index]


def attach_unet(unet, session: Session) -> None:
    def forward(sample, timestep, encoder_hidden_states, timestep_cond=None, added_cond_kwargs=None, **_):
        return (session.only(sample=sample, timestep=timestep, encoder_hidden_states=encoder_hidden_states,
                             timestep_cond=timestep_cond, **(added_cond_kwargs or {})),)

    unet.forward = forward


def attach_transformer(transformer, session: Session) -> None:
    if type(transformer).__name__ == "ZImageTransformer2DModel":
        def forward(x, t, cap_feats, **_):
            pairs = zip(x, t, cap_feats)
            return ([session.only(hidden_states=one[:, 0][None], timestep=time[None],
                                  encoder_hidden_states=rows[None])[0][:, None] for one, time, rows in pairs],)
    else:
        def forward(hidden_states=None, *given, **named):
            names = ("encoder_hidden_states", "timestep")
            return (session.only(hidden_states=hidden_states, **dict(zip(names, given)), **named),)

    transformer.forward = forward


def attach_autoencoder(vae, decoder: Session, encoder: Session) -> None:
    kind = type(vae).__name__
    decode = lambda z: decoder.only(latent_sample=z)
    encode = lambda sample: encoder.only(sample=sample)
    if kind == "AutoencoderKLFlux2":
        # The pipeline undoes and applies the batch norm, which is inside the graphs.
        mean, deviation = batch_norm(vae)
        vae.decode = lambda z, **_: (decode((patchify(z) - mean) / deviation),)
        vae.encode = lambda sample, **_: posterior(unpatchify(encode(sample) * deviation + mean))
    else:
        vae.decode = lambda z, **_: (decode(z),)
        vae.encode = lambda sample, **_: (
            EncoderOutput(encode(sample)) if kind == "AutoencoderDC"
            else AutoencoderKLOutput(DiagonalGaussianDistribution(encode(sample))))


def posterior(mean: torch.Tensor) -> AutoencoderKLOutput:
    return AutoencoderKLOutput(DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], dim=1)))
