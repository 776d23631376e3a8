#!/usr/bin/env python3
"""Write prompts.json: prompts as the slow CLIPTokenizer of transformers 4.56.2 reads them with ftfy 6.3.1.

    pip install transformers==4.56.2 ftfy==6.3.1
    python tests/golden/prompts/make.py

tokenizer/ has every byte as a token, so that each character of a prompt shows. The prompts are the documented cases
of ftfy, what people paste into prompts, and sentences in several scripts that were read in wrong encodings.
"""

import json
import random
from pathlib import Path

import ftfy
import ftfy.fixes
from transformers.models.clip import tokenization_clip
from transformers import CLIPTokenizer

HERE = Path(__file__).parent
ENCODINGS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253",
             "sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"]

PASTED = [
    "a cat's \"red\" hat", "a cat’s “red” hat", "‘single’ ‚low‛ „double‟", "ʼn Boer", "it ʼs", "don’t, we’ll, I’m, they’ve, she’d",
    "ＬＯＵＤ　ＮＯＩＳＥＳ", "ａｎｉｍｅ　ｇｉｒｌ，　１２３！？", "Ｕﾀｰﾝ", "ﾊﾟｰﾃｨｰ ｶﾞｷﾞｸﾞ", "ﾡﾢﾣ￠￡￢￣￤￥￦", "￨￩￪￫￬￭￮",
    "ﬂuﬃeﬆ oﬀiceﬅ ﬄ ﬁ", "Ĳsselmeer ĳs ŉ Ǳ ǲ ǳ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ æ œ",
    "cats &amp; dogs", "cats &amp;amp; dogs", "&lt;b&gt;bold&lt;/b&gt; &quot;text&quot; &#39;s", "<b>not &amp; unescaped</b>",
    "first &amp; line\nsecond <i>line</i> &amp;\nthird &amp; line", "&hellip; &mdash; &ndash; &nbsp;x &copy;", "this&not that &notit; &ampx",
    "P&EACUTE;REZ P&eacute;rez", "BUNDESSTRA&SZLIG;E", "&ntilde; &Ntilde; &NTILDE; &nTILDE;", "&Jscr;ohn &HilbertSpace;ancock &checkmark;",
    "&GTDOT; &LTRI; &AMPX; &COPYSR; &REGX; &QUOTX; &THORN; &ETH; &FRAC14; &FFLIG; &fflig;", "&#233; &#xe9; &#XE9; &#x00E9; &#128512;",
    "&#128; &#129; &#150; &#x9f; &#0; &#1; &#11; &#12; &#13; &#127; &#65534; &#64976; &#xD800; &#x110000; &#99999999999999;",
    "&#59; &#x3b; &#; &#x; &#12a; &#xzz; &1; &a; &thetasym; &b.theta;", "&lt;3 &amp;hearts; &hearts;", "&NotEqualTilde; &bne;",
    "\ufeffa byte order mark", "in \ufeffthe\ufeff middle", "zero\u200bwidth\u200c \u200djoin\u2060er", "soft\u00adhyphen", "bell\x07 nul\x00 esc\x1b vt\x0b ff\x0c us\x1f del\x7f",
    "\x1b[36;44mI'm blue, da ba dee da ba doo...\x1b[0m", "\x1b[31mred\x1b[0m hat \x1b[K \x1b[1;2", "a\u206a\u206fb \ufff9c\ufffad\ufffb \ufffc",
    "two\r\nlines", "old\rmac", "sep\u2028line\u2029para", "next\x85line", "tab\tvt\x0bff\x0cend", "a\x1cb\x1dc\x1ed", "nbsp\u00a0ogham\u1680en\u2000hair\u200anar\u202fmath\u205fideo\u3000x",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ΑΣ. ΑΣΑ ΑΣ'Α", "ÎÇŞİI ıiİI", "ÄÖÜ ẞ Straße", "Ǆungla Ǉubav Ǌ", "É vs É", "Å Å Å", "café crème brûlée", "ñandú niño Ñ",
    "naïve façade über", "Việt Nam phở bò", "Łódź żółw gęś", "Příliš žluťoučký kůň", "Ελληνικά γράμματα", "Русский текст, ёлка", "עברית", "العربية", "हिन्दी", "ไทย",
    "中文字符 beside Latin", "a 猫 cat", "日本語のテキスト", "한국어 한", "カタカナ ｶﾀｶﾅ", "👍 🇩🇪 👨‍👩‍👧‍👦 🏴󠁧󠁢󠁷󠁬󠁳󠁿 ❤️ 🏳️‍🌈", "emoji😀in😀words", "☃ ★ ♥ → ∞ ½ ² № ™ © ®",
    "1234 ١٢٣ ①② Ⅳ ½ x²", "a_b-c.d,e;f:g!h?i", "(masterpiece:1.2), [detailed], {x|y}", "50% off @ $5 #tag ~ ^ ` | \\ /", "'s 't 're 've 'm 'll 'd 'S 'T", "rock'n'roll isn't",
    "", " ", "   leading and trailing   ", "many    spaces\t\ttabs\n\nlines", "<|startoftext|>a cat<|endoftext|>", "a <|endoftext|> &amp; b", "x<|ENDOFTEXT|>y", "x &lt;|endoftext|&gt; y",
    "wow! great!! ！", "&#33; &excl;", "ſt ſ K Å", "a\u0301 e\u0301\u0323 q\u0323\u0307", "\u0344 \u0958 \u2126 \u212a \uf900", "“quoted — dashed – text…”",
    "it‘s a ‚test‘", "price: €5 £3 ¥200 ¢9", "30° north, Å = 10⁻¹⁰ m", "«guillemets» ‹single› „Gänsefüßchen“", "ÀÉÎÕÜ", "ÂÃ", "Ø is a letter, Ù too", "à la carte", "¿Qué? ¡Sí!",
    "Ａ＆Ｂ ＜ｔａｇ＞ ＆ａｍｐ； ＆＃３９；", "&amp;#39; &amp;lt; &#38;amp;", "a&nbsp;b&NBSP;c&shy;d&zwj;e",
]

# The examples in ftfy's documentation and in its tests of behaviour.
DOCUMENTED = [
    "âœ” No problems", "&macr;\\_(ã\x83\x84)_/&macr;", "Broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "sÃ³", "voilÃ le travail", "Ã³", "&ATILDE;&SUP3;",
    "schÃ¶n", "(à¸‡'âŒ£')à¸‡", "uÌˆnicode", "â€œmojibakeâ€\x9d", "â€œ like this â€�", "The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.",
    "l&rsquo;humanitÃ©", "Ã perturber la rÃ©flexion", "é…\x8dç½®", "ï¼ˆï¼‰", "He's Justinâ¤", "Le Schtroumpf Docteur conseille g√¢teaux et baies schtroumpfantes",
    "âœ” No problems", "4288×…", "RUF MICH ZURÜCK", "(-1/2)! = √π", "OK??:(   `¬´    ):", "HUHLL Õ…", "IL Y MARQUÉ…", "TEM QUE SEGUIR, SDV SÓ…", "Join ZZAJÉ’s Official Fan List",
    "(⌒▽⌒)", "ÃºnicamÃ©nte", "Ãƒ Ã‚", "PÃ¤rt", "à\xa0la", "Ã la mode", "Ã s vezes Ã quele Ã quela Ã quilo", "fÃ cil", "Â£5 Â© Â° Â·", "Â a b Â", "It was namedÂ â€žscarsÂ´ stonesâ€œ after the rock",
    "2012â€”∆º 2013", "aÌ\x81 Â", "ноябрÑ\x8f", "Ð¡ÐµÐ²ÐµÑ€Ð½Ð°Ñ", "Ñ\x83Ñ‡ÐµÐ½Ð¸Ðº", "Ð\xa0Ð¾Ñ\x81Ñ\x81Ð¸Ñ\x8f", "РїСЂРёРІРµС‚ РјРёСЂ", "вЂњcatsвЂќ вЂ” dogs", "Вµ В°", "ГўВЂВ™ x",
    "β€™s β€œa β€\xa0", "ΓΌber ΞΏ", "ā€“ ā€œ", "Ĺ‚ĂłdĹş", "Å\x82Ã³dÅº", "PoÅ\x9fta", "ÅŸeker Ä°stanbul", "‚Äúsmart‚Äù ‚Äì quotes", "√©t√© √†", "≈ì ≈°", "ΓÇ£quotesΓÇ¥ ΓÇö ├⌐", "æ—¥æœ¬èª\x9e", "ì•ˆë…•", "ðŸ˜Š ðŸ‘\x8d", "ð\x9f\x98\x8a",
    "í\xa0½í¸\x8d", "Ã\x80Â\x80", "À\x80", "œ cœur œ. Œ uvre", "¯\\_(ツ)_/¯", "ÓÔ", "Ô_Ô ò_ó", "│ô│", "°_°", "×²", "à²", "Ø§Ù„Ø¹Ø±Ø¨ÙŠØ©", "à¤¹à¤¿à¤¨à¥\x8dà¤¦à¥€", "à¸ªà¸§à¸±à¸ªà¸”à¸µ",
    "What is this \x85 I don't even", "This string is\u2029 1. Unicode\u2028 2. Spite", "\x91smart\x92 \x93quotes\x94 \x96", "\x81\x8d\x8f\x90\x9d é", "caf\xe9 \x80 5", "ÃƒÂ©tÃƒÂ©", "ÃƒÆ’Ã‚Â©", "Ã¢â‚¬Å“oneÃ¢â‚¬Â\x9d",
    "Ã?n question mark", "â€? lost", "Ã� replaced", "â€� �", "\x1a sub Ã©", "Ã© and \x1a", "AHÅ™, the new sofa from IKEA®", "WELCOME TO THE ÅLAND", "SÃO PAULO Ãmérica", "São Â Paulo",
    "Ã¡rbol Ã±andÃº mixed with “good” quotes", "good é then bad Ã© then ü", "日本 Ã©", "текст Ã©", "€Ã©", "¬´guillemets¬ª", "mark дё\xadж–‡е\xad—з¬¦", "п¬‚uп¬ѓeп¬† many", "Ã©" * 40, "â€™" * 3 + "s", "a" * 100 + "Ã©",
]

SENTENCES = [
    "“A cat’s hat” — naïve façade, déjà vu…", "Éléphant à côté d’une forêt", "Größe: süße Äpfel für 5 €", "¿Dónde está el niño? ¡Aquí!", "Zażółć gęślą jaźń",
    "Příliš žluťoučký kůň úpěl", "Şişli’de İstanbul ığdır", "Съешь ещё этих мягких булок", "Ξεσκεπάζω την ψυχοφθόρα", "Ąžuolas šlamėjo žvėrių",
    "日本語のプロンプト", "한국어 문장", "עברית", "العربية جميلة", "हिन्दी", "😀 👍 ❤️", "ñ", "à", "• bullet · dot – dash", "½ cup × 2 ± 3°",
]


def texts():
    yield from PASTED
    yield from DOCUMENTED
    for sentence in SENTENCES:
        for encoding in ENCODINGS:
            garbled = sentence.encode().decode(encoding, "replace")
            yield garbled
            yield garbled.replace("\u00a0", " ")
    rng = random.Random(7)
    for sentence in SENTENCES:
        first, second = rng.choice(ENCODINGS), rng.choice(ENCODINGS[:3])
        try:
            yield sentence.encode().decode(first).encode().decode(second)
        except UnicodeDecodeError:
            pass
        other = rng.choice(SENTENCES).encode().decode(first, "replace")
        yield f"{sentence} {other}"
    # Characters of the pieces above, in any order.
    characters = sorted(set("".join(PASTED + DOCUMENTED)) - {"<", "|"})
    for _ in range(150):
        yield "".join(rng.choice(characters + ["a", " ", "Ã", "â€"] * 20) for _ in range(rng.randint(3, 30)))
    # Characters that occur in mojibake, in any order.
    bytes_ = [chr(c) for c in range(0x80, 0x100)] + [bytes([b]).decode(e) for e in ENCODINGS for b in range(0x80, 0x100)]
    for _ in range(250):
        encoding = rng.choice(ENCODINGS)
        own = [bytes([b]).decode(encoding) for b in range(0x80, 0x100)]
        pool = rng.choice([bytes_, own]) + [" ", "a", "Z", "."]
        yield "".join(rng.choice(pool) for _ in range(rng.randint(2, 9)))


def tokenizer(pad):
    folder = HERE / ("tokenizer" if pad == "<|endoftext|>" else "tokenizer-pad")
    folder.mkdir(exist_ok=True)
    letters = list(tokenization_clip.bytes_to_unicode().values())
    merges = [("c", "a"), ("ca", "t</w>"), ("'", "s</w>")]
    tokens = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>",
              "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def main():
    assert ftfy.__version__ == "6.3.1"
    cases = []
    for pad in ["<|endoftext|>", "!"]:
        reference = tokenizer(pad)
        assert reference.fix_text is not None
        for text in dict.fromkeys(texts()) if pad != "!" else [t for t in PASTED if "!" in t or "！" in t or "&#33;" in t]:
            ids = reference(text, padding="max_length", truncation=True).input_ids
            unpadded = len(reference(text, truncation=True).input_ids)
            cleaned = tokenization_clip.whitespace_clean(ftfy.fix_text(text)).lower()
            cases.append({"pad": pad, "text": text, "cleaned": cleaned, "ids": ids[:unpadded]})
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (HERE / "prompts.json").write_text(f"[\n{lines}\n]\n")
    changed = sum(case["text"].lower() != case["cleaned"] for case in cases)
    print(len(cases), "prompts, of which the cleaning changes", changed)


if __name__ == "__main__":
    main()
