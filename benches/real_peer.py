"""Draws one picture with Stable Diffusion on onnxruntime alone: what a plain program does for the job of `real.py`.

    python real_peer.py draw FOLDER JOB.json NOISE.npy LATENTS.npy OUT.png
    python real_peer.py evaluate FOLDER SIDE BATCH TIMES

`evaluate` prints the seconds of each evaluation of the bare session. Needs onnxruntime, numpy and tokenizers.
"""

import json
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np

TOKENS = 77
TYPES = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def session(graph):
    import onnxruntime
    return onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])


def run(session, **values):
    """Evaluates a session with the inputs in the types that it takes, and returns its first output as float32."""
    types = {value.name: TYPES[value.type] for value in session.get_inputs()}
    inputs = {name: np.asarray(value).astype(types[name]) for name, value in values.items()}
    return session.run(None, inputs)[0].astype(np.float32)


def tokenizer(folder):
    """The tokenizer of CLIP from the folder's vocabulary, as transformers builds it."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    own = Tokenizer(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"),
                                  continuing_subword_prefix="", end_of_word_suffix="</w>"))
    own.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    vocabulary = json.loads((folder / "vocab.json").read_text())
    begin, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]

    def tokens(text):
        ids = [begin, *own.encode(text, add_special_tokens=False).ids[:TOKENS - 2], end]
        return ids + [end] * (TOKENS - len(ids))

    return tokens


def embeddings(folder, texts):
    tokens = tokenizer(folder / "tokenizer")
    encoder = session(folder / "text_encoder/model.onnx")
    name = encoder.get_inputs()[0].name
    return np.concatenate([run(encoder, **{name: [tokens(text)]}) for text in texts])


def ddim(folder, steps):
    """Returns the time steps of DDIM with the cumulative alphas at each step and after it."""
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    count = config["num_train_timesteps"]
    roots = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count, dtype=np.float32)
    alphas = np.cumprod(1 - roots ** 2, dtype=np.float32)
    for step in range(steps - 1, -1, -1):
        t = step * (count // steps) + config["steps_offset"]
        before = t - count // steps
        yield t, alphas[t], alphas[before] if before >= 0 else alphas[0]


def png(pixels):
    """Encodes rows of RGB bytes."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
            + chunk(b"IEND", b""))


def draw(folder, job, noise, latents, out):
    folder, job = Path(folder), json.loads(Path(job).read_text())
    text = embeddings(folder, [job["negative_prompt"], job["prompt"]])
    x = np.load(noise)
    network = session(folder / "unet/model.onnx")
    for t, alpha, before in ddim(folder, job["steps"]):
        answer = run(network, sample=np.concatenate([x, x]), timestep=np.full(timestep_shape(network, 2), t),
                     encoder_hidden_states=text)
        epsilon = answer[:1] + np.float32(job["guidance"]) * (answer[1:] - answer[:1])
        x0 = (x - np.sqrt(1 - alpha) * epsilon) / np.sqrt(alpha)
        x = np.sqrt(before) * x0 + np.sqrt(1 - before) * epsilon
    np.save(latents, x)
    scaling = json.loads((folder / "vae_decoder/config.json").read_text())["scaling_factor"]
    picture = run(session(folder / "vae_decoder/model.onnx"), latent_sample=x / scaling)[0]
    pixels = ((picture.transpose(1, 2, 0) / 2 + 0.5).clip(0, 1) * 255).round().astype(np.uint8)
    Path(out).write_bytes(png(pixels))


def latent_side(folder, side):
    """Returns the side of the latent of a picture with this side."""
    config = json.loads((Path(folder) / "vae_decoder/config.json").read_text())
    return side // 2 ** (len(config["block_out_channels"]) - 1)


def timestep_shape(network, batch):
    shape = next(value.shape for value in network.get_inputs() if value.name == "timestep")
    return [length if isinstance(length, int) else batch for length in shape]


def evaluate(folder, side, batch, times):
    batch, latent = int(batch), latent_side(folder, int(side))
    network = session(Path(folder) / "unet/model.onnx")
    shapes = {value.name: value.shape for value in network.get_inputs()}
    draws = np.random.default_rng(1)
    sample = draws.standard_normal((batch, 4, latent, latent), np.float32)
    text = draws.standard_normal((batch, TOKENS, shapes["encoder_hidden_states"][2]), np.float32)
    for _ in range(int(times)):
        start = time.perf_counter()
        run(network, sample=sample, timestep=np.full(timestep_shape(network, batch), 500), encoder_hidden_states=text)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    {"draw": draw, "evaluate": evaluate}[sys.argv[1]](*sys.argv[2:])
