"""Record how transformers reads tokenizer folders: added tokens and special tokens in every form that it writes.

Needs ftfy 6.3.1 and transformers 4.57.3, and once more transformers 5.24.0 for the folders that only version 5 writes.
Run it as `python make.py`; each version writes its own file of cases. The vocabularies are those of
tests/golden/latent/bundles.
"""

import json
import tempfile
from pathlib import Path

import transformers
from transformers import AddedToken, CLIPTokenizer, CLIPTokenizerFast, T5TokenizerFast

BUNDLES = Path(__file__).parents[1] / "latent" / "bundles"
CLIP = BUNDLES / "sd" / "tokenizer"
T5 = BUNDLES / "flux" / "tokenizer_2"
PLAIN = ["vocab.json", "merges.txt"]
PROMPTS = [
    "a red fox", "A <cat> and<dog>!", "a <cat>, a<cat>b <CAT>", "the  <left>  fox  <right>  snow", "x<one>y <one> z <one>",
    "<|ENDOFTEXT|> a <|startoftext|>b", "<dog><cat> ! <s> </s> <unk> [PAD]", "fo\u0301x \"red\"",
    "snow " * 30 + "<cat>",
]


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False} | flags


START, END = "<|startoftext|>", "<|endoftext|>"
BASE = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END, "model_max_length": 24}
NAMES = {"198": token(START, normalized=True, special=True), "199": token(END, normalized=True, special=True)}
ADDED = NAMES | {"200": token("<cat>", normalized=True, special=False), "201": token("<dog>", special=True)}
FLAGS = NAMES | {
    "200": token("<left>", lstrip=True, special=False), "201": token("<right>", rstrip=True, special=False),
    "202": token("<one>", single_word=True, special=False),
}
SPLIT = {"bos_token": token(START), "eos_token": token(END), "unk_token": token(END)}

# Name, class, and the files beside vocab.json and merges.txt.
SLOW = [
    ("no files", {}),
    ("added_tokens_decoder", {"tokenizer_config.json": BASE | {"added_tokens_decoder": ADDED}}),
    ("flags", {"tokenizer_config.json": BASE | {"added_tokens_decoder": FLAGS}}),
    ("added_tokens.json", {"tokenizer_config.json": BASE, "added_tokens.json": {"<cat>": 200, "<dog>": 201}}),
    ("added_tokens.json beside the decoder",
     {"tokenizer_config.json": BASE | {"added_tokens_decoder": NAMES}, "added_tokens.json": {"<cat>": 200}}),
    ("special_tokens_map strings",
     {"tokenizer_config.json": BASE, "special_tokens_map.json": {"pad_token": "!", "additional_special_tokens": ["<cat>"]}}),
    ("special_tokens_map objects",
     {"tokenizer_config.json": BASE,
      "special_tokens_map.json": SPLIT | {"pad_token": token("!"), "additional_special_tokens": [token("<left>", lstrip=True)]}}),
    ("special_tokens_map beside the decoder",
     {"tokenizer_config.json": BASE | {"pad_token": "!", "added_tokens_decoder": {"0": token("!", special=True)} | NAMES},
      "special_tokens_map.json": {"pad_token": END}}),
    ("pad as an object", {"tokenizer_config.json": BASE | {"pad_token": {"__type": "AddedToken"} | token("!")}}),
    ("pad added after the vocabulary", {"tokenizer_config.json": BASE | {"pad_token": "[PAD]"}}),
    ("other bos and eos", {"tokenizer_config.json": BASE | {"bos_token": "<s>", "eos_token": "</s>"}}),
    ("other unk", {"tokenizer_config.json": BASE | {"unk_token": "<unk>"}}),
    ("special tokens of every kind",
     {"tokenizer_config.json": BASE | {"sep_token": "<dog>", "cls_token": "<s>", "mask_token": "</s>",
                                       "additional_special_tokens": ["<cat>", token("<left>", lstrip=True) | {"__type": "AddedToken"}]}}),
    ("multi-vector embedding",
     {"tokenizer_config.json": BASE | {"added_tokens_decoder": NAMES | {
         "200": token("<cat>", special=False), "201": token("<cat>_1", special=False), "202": token("<cat>_2", special=False)}}}),
    ("longest token first",
     {"tokenizer_config.json": BASE, "added_tokens.json": {"<cat": 200, "<cat>": 201, "<cat>b": 202, "at>": 203}}),
    ("truncation_side left", {"tokenizer_config.json": BASE | {"truncation_side": "left"}}),
    ("split_special_tokens", {"tokenizer_config.json": BASE | {"split_special_tokens": True, "added_tokens_decoder": ADDED}}),
    ("do_lower_case false", {"tokenizer_config.json": BASE | {"do_lower_case": False, "added_tokens_decoder": ADDED}}),
    ("max_len", {"tokenizer_config.json": {"max_len": 20}}),
    ("extra_special_tokens", {"tokenizer_config.json": BASE | {"extra_special_tokens": {"image_token": "<cat>"}}}),
    ("tokenizer.json beside the vocabulary", {"tokenizer.json": "fast", "tokenizer_config.json": BASE}),
]
FAST = [
    ("fast, converted", {"tokenizer_config.json": BASE | {"added_tokens_decoder": ADDED}}),
    ("fast, tokenizer.json", {"tokenizer.json": "fast", "tokenizer_config.json": BASE}),
    ("fast, tokenizer.json and more tokens", {"tokenizer.json": "fast", "tokenizer_config.json": BASE | {"added_tokens_decoder": FLAGS}}),
    ("fast, pad of the config", {"tokenizer.json": "fast", "tokenizer_config.json": BASE | {"pad_token": "!"}}),
    ("fast, with padding and truncation", {"tokenizer.json": "padded", "tokenizer_config.json": BASE}),
    ("fast, split_special_tokens", {"tokenizer.json": "fast", "tokenizer_config.json": BASE | {"split_special_tokens": True}}),
]
T5_CONFIG = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0, "model_max_length": 24}
T5S = [
    ("T5", {"tokenizer_config.json": T5_CONFIG}),
    ("T5, additional tokens", {"tokenizer_config.json": T5_CONFIG | {"additional_special_tokens": ["<cat>", "<dog>"]}}),
    ("T5, other pad", {"tokenizer_config.json": T5_CONFIG | {"pad_token": "<dog>"}}),
]


def tokenizer_json(kind):
    tokenizer = CLIPTokenizerFast.from_pretrained(CLIP)
    tokenizer.add_tokens(["<cat>", AddedToken("<dog>", rstrip=True, normalized=False)])
    if kind == "padded":
        tokenizer("a red fox", padding="max_length", max_length=5, truncation=True)
    return json.loads(tokenizer.backend_tokenizer.to_str())


def fill(folder, source, names, files):
    for name in names:
        (folder / name).write_text((source / name).read_text())
    for name, content in files.items():
        if isinstance(content, str):
            content = files[name] = tokenizer_json(content)
        (folder / name).write_text(json.dumps(content))


def convert(prompt, tokenizer):
    """diffusers' TextualInversionLoaderMixin._maybe_convert_prompt."""
    for name in sorted(set(tokenizer.tokenize(prompt))):
        if name in tokenizer.added_tokens_encoder:
            replacement, i = name, 1
            while f"{name}_{i}" in tokenizer.added_tokens_encoder:
                replacement += f" {name}_{i}"
                i += 1
            prompt = prompt.replace(name, replacement)
    return prompt


def record(name, kind, source, names, files):
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch), source, names, files)
        tokenizer = kind.from_pretrained(scratch)
        length = min(tokenizer.model_max_length, 24)
        ids = [
            tokenizer(convert(prompt, tokenizer), padding="max_length", truncation=True, max_length=length).input_ids
            for prompt in PROMPTS
        ]
    files = {name: json.dumps(content, ensure_ascii=True) for name, content in files.items()}
    return {"name": name, "class": kind.__name__, "bundle": source.relative_to(BUNDLES).as_posix(), "copied": names,
            "files": files, "length": length, "ids": ids}


def version_4():
    for name, files in SLOW:
        yield record(name, CLIPTokenizer, CLIP, PLAIN, files)
    for name, files in FAST:
        yield record(name, CLIPTokenizerFast, CLIP, PLAIN, files)
    for name, files in T5S:
        yield record(name, T5TokenizerFast, T5, ["tokenizer.json"], files)


def version_5():
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = CLIPTokenizer.from_pretrained(CLIP)
        tokenizer.add_tokens(["<cat>", AddedToken("<dog>", lstrip=True, normalized=False)])
        tokenizer.model_max_length = 24
        tokenizer.save_pretrained(scratch)
        files = {file.name: json.loads(file.read_text()) for file in sorted(Path(scratch).glob("*.json"))}
    yield record("saved by version 5", CLIPTokenizer, CLIP, [], files)


major = transformers.__version__.split(".")[0]
cases = list(version_4() if major == "4" else version_5())
lines = ",\n".join(json.dumps(case) for case in cases)
prompts = json.dumps(PROMPTS)
Path(__file__).with_name(f"cases-{major}.json").write_text(f'{{"prompts": {prompts}, "cases": [\n{lines}\n]}}\n')
