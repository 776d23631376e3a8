"""Train the tokenizer: CLIP's byte-pair encoding with a vocabulary of the prompts' words."""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

import captions
import data
from networks import LENGTH

SIZE = 3200
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's


def train(texts: list[str], folder: Path):
    """Write vocab.json and merges.txt, in CLIP's order: bytes, bytes that end a word, merges, start and end."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    merges = merges[: SIZE - 2 * len(alphabet) - 2]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges), START, END]
    assert len(set(tokens)) == len(tokens) == SIZE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "bos_token": START, "eos_token": END,
        "unk_token": END, "pad_token": END, "do_lower_case": True}, indent=2) + "\n")


def load(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of `LENGTH` tokens for each prompt."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"))
    given = parser.parse_args()
    _, entries = data.load(given.work / "emoji.npz")
    train(captions.corpus(entries), given.work / "tokenizer")
    tokenizer = load(given.work / "tokenizer")
    names = [entry["names"][0] + captions.tone_of(entry) for entry in entries]
    lengths = [sum(token != SIZE - 1 for token in ids) + 1 for ids in encode(tokenizer, names)]
    print(f"{len(names)} names: {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most")
    print(tokenizer.tokenize("a blue cat face in a box, pizza"))


if __name__ == "__main__":
    main()
