"""What texts are made of in any script: letters as they are compared, and the words, characters and numbers that they form."""

import re
import unicodedata

import regex

_TYPED = str.maketrans({**dict.fromkeys("‘’‚‛ʼ", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‑−", "-")})
_TAGS = r"\U000e0020-\U000e007f"  # tell the flags of parts of countries
_INVISIBLE = regex.compile(rf"[\p{{DI}}--[\u200c\u200d{_TAGS}]]", regex.V1)
_PLAIN_LETTERS = r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{Hebrew}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}]"
# Joiners stand within words of Persian and Hindi, for example, and within emoji.
_STRAY_JOINER = regex.compile(
    rf"(?<![[\p{{L}}\p{{M}}]--{_PLAIN_LETTERS}]|[\p{{ExtPict}}\p{{EMod}}])[\u200c\u200d]+"
    r"|[\u200c\u200d]+(?![\p{L}\p{M}\p{ExtPict}])",
    regex.V1,
)
_WIDE = re.compile(r"[\ufe50-\ufe6f\uff01-\uffee]+")

# Letters of scripts without spaces between words: East Asia's, those that Unicode breaks by dictionary or by syllable. Kana's
# long vowels and a closing mark are of no script, zero is no letter. Tibetan parts syllables by a point.
_SCRIPTS = r"""\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}
    \p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}\p{Javanese}\p{Balinese}\p{Tibetan}"""
_UNSPACED = rf"[[[{''.join(_SCRIPTS.split())}]&&\p{{L}}]ーｰ〆〇]"
CHARACTER = rf"(?:[\p{{Tibetan}}&&[\p{{L}}\p{{M}}]]+|{_UNSPACED}\p{{M}}*)"
_IN_WORDS = rf"[[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d]--{_UNSPACED}]"
_LONE = rf"(?<!{_IN_WORDS})\p{{L}}"

_BEFORE_SIGN = rf"(?<!{_IN_WORDS}|[_.)\]\-])"
_BEFORE_NUMBER = r"(?=\p{Sc}?\.?\d)"
_DASH = regex.compile(rf"{_BEFORE_SIGN}[‒–]{_BEFORE_NUMBER}", regex.V1)
_SIGN = rf"{_BEFORE_SIGN}-{_BEFORE_NUMBER}"
_COMPARED = r"[<>≤≥≠≈±]=?(?=-?\p{Sc}?\.?\d)"
_LEADING_POINT = rf"(?<!{_IN_WORDS}|[_.])\.(?=\d)"
_ENDING = (
    rf"(?<=\p{{L}})(?:\+\+?|\#)(?!{_IN_WORDS}|[_+\#])"  # C++, C#
    rf"|(?<=(?<!{_IN_WORDS})(?:(?!i)\p{{L}}|ab))-(?!{_IN_WORDS}|[_\-])"  # A-, not a stammered I-
)
# of fractions, times and powers, in 1e-5, C++11, C#7
_JOINT = rf"(?<=\d)(?:[./:]|\^-?)(?=\d)|(?<=\de)-(?=\d)|(?<=\p{{L}})\+\+(?=\d)|(?<={_LONE})\#(?=\d)"
MEANT_PUNCTUATION = rf"{_JOINT}|{_COMPARED}|{_LEADING_POINT}|{_SIGN}|{_ENDING}"
"""Pattern of ASCII punctuation that tells numbers and names apart, in lower case."""

_TOKEN = regex.compile(
    rf"""
    (?P<character>{CHARACTER})
    | (?:{_COMPARED})? (?:{_SIGN})? (?:{_LEADING_POINT})?
        {_IN_WORDS}+ (?:(?:(?<=\d)[,٫](?=\d)|{_JOINT}){_IN_WORDS}+)* (?:{_ENDING})?
    | \p{{RI}}\p{{RI}} | \p{{ExtPict}}(?:[\p{{EMod}}{_TAGS}]|\u200d\p{{ExtPict}})*  # flags and other emoji
    """,
    regex.V1 | regex.VERBOSE,
)
_CURRENCY = regex.compile(r"(?<=-)\p{Sc}(?=\.?\d)")  # -$5 is -5
_FOREIGN = regex.compile(rf"{_UNSPACED}|[\p{{L}}--\p{{Latin}}]{{2}}", regex.V1)
_PIECE = regex.compile(rf"{CHARACTER}[^\p{{L}}\p{{N}}]*|(?:(?!{_UNSPACED}).)+", regex.V1 | regex.DOTALL)


def folded(text: str) -> str:
    """Letters composed (NFC), quotes, hyphens and minus signs as ASCII has them, nothing that is invisible."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return _STRAY_JOINER.sub("", composed).translate(_TYPED)


def narrow(text: str) -> str:
    """A folded text with letters, digits and signs of full or half width as usual, and every dash that is a sign as one."""
    if text.isascii():
        return text
    return _DASH.sub("-", _WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), text))


def found(lower: str) -> list[regex.Match[str]]:
    """Words and single characters (the group `character`), with what tells numbers and names."""
    return list(_TOKEN.finditer(_CURRENCY.sub("", lower)))


def is_foreign(text: str) -> bool:
    """Whether it has a character of a script without spaces, or two letters in another script than Latin."""
    return not text.isascii() and _FOREIGN.search(text) is not None


def pieces(part: str) -> list[str]:
    """Of a text without white space: characters with the punctuation behind them, and what is between them."""
    return _PIECE.findall(part)
