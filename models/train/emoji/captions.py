"""Prompts for pictures: names, keywords, templates, colours, skin tones and compositions."""

import random

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black", "white"]
CONTAINERS = {"box": "package", "basket": "basket", "bucket": "bucket", "cup": "teacup without handle"}

# Combinations that training never sees, so that samples of them show what the words mean together.
HELD_OUT_COLOURS = {
    "cat face": "blue", "pizza": "purple", "fire": "green", "strawberry": "blue", "octopus": "green", "frog": "red",
    "rocket": "purple", "banana": "pink", "dog face": "green", "rose": "blue", "automobile": "yellow", "fox": "purple",
}
HELD_OUT_CONTENTS = {"box": ["red heart", "dog face"], "basket": ["pizza"], "bucket": ["fire"], "cup": ["frog"]}
HELD_OUT_PAIRS = [{"pizza", "rocket"}, {"cat face", "rose"}, {"robot", "strawberry"}]
HELD_OUT_SMALL = {"octopus", "hamburger"}

TEMPLATES = [*["{}"] * 4, "a {}", "the {}", "{} emoji", "emoji of a {}", "a picture of a {}", "an icon of {}"]


def name_of(entry: dict, draw: random.Random) -> str:
    """One of the names, mostly the first."""
    return entry["names"][0] if draw.random() < 0.7 else draw.choice(entry["names"])


def tone_of(entry: dict) -> str:
    return f" {' and '.join(entry['tones'])} skin tone" if entry["tones"] else ""


def caption_of(entry: dict, draw: random.Random, colour: str | None = None) -> str:
    """A prompt for one picture. `colour` replaces a colour among the words."""
    kind = draw.random()
    words = name_of(entry, draw)
    if colour:
        kept = [word for word in words.split() if word not in COLOURS]
        return draw.choice(TEMPLATES).format(f"{colour} {' '.join(kept) or words}")
    if kind < 0.08 and entry["keywords"]:
        words = draw.choice(entry["keywords"])
    elif kind < 0.22 and entry["keywords"]:
        words = f"{words} {draw.choice(entry['keywords'])}"
    elif kind < 0.26:
        words = f"{words} {entry['subcategory'].replace('-', ' ').replace('&', 'and')}"
    return draw.choice(TEMPLATES).format(words) + tone_of(entry)


def is_held_out_colour(entry: dict, colour: str) -> bool:
    return any(HELD_OUT_COLOURS.get(name) == colour for name in entry["names"])


def corpus(entries: list[dict]) -> list[str]:
    """Every word that captions consist of, for the tokenizer."""
    texts = [text for entry in entries if not entry["tones"] for text in
             [entry["names"][0], *entry["names"], *entry["keywords"], entry["subcategory"].replace("-", " ")]]
    more = [*COLOURS, *CONTAINERS, *TEMPLATES, "small", "two", "and", "in a", "flag of", "medium", "light", "dark", "skin tone"]
    return texts + [word.replace("{}", "") for word in more] * 50
