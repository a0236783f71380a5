"""Numbers as languages write them: which mark stands before decimals, which parts thousands."""

import re

import regex

# As Unicode CLDR 48 has it. Of languages in neither set a single mark before three digits may be either, and stays.
DECIMAL_POINT = frozenset(
    """am ar as bn bo cy dz en ga gd gu gv ha he hi ig ii ja ki km kn ko ks kw lg mg mi ml mn mr ms mt my nd ne ny om or pa sa
    sd si sn so sw ta te th ti tl tn ug ur yo za zh zu""".split()
)
DECIMAL_COMMA = frozenset(
    """af az ba be bg br bs ca cs cv da de el eo es et eu ff fi fo fr fy gl hr ht hu hy ia id ie is it jv ka kk kl ku ky lb ln
    lo lt lu lv mk nb nl nn no pl ps pt rm rn ro ru rw sc se sg sk sl sq sr ss su sv tg tk tr tt uk uz ve vi wo""".split()
)
# Those of them that part thousands by a space.
_SPACED = frozenset(
    "af ba be bg br cs cv eo et ff fi fr ht hu hy ka kk ky lt lv nb nn no pl ru se sk sq sv tg tk tt uk uz".split()
)

_TYPED_FOR_IT = "٬'\u00a0\u2007\u2009\u202f"  # between three digits they part nothing else
_MAYBE = re.compile(r"\d\W\d\d")
_GROUPED = regex.compile(
    rf"""
    (?<![\d.,٫٬'])(?!0)
    (?P<whole>
        \d{{1,2}}(?:,\d\d)+,\d{{3}}  # 12,34,567, as India writes it
        | \d{{1,3}}(?:(?P<mark>[.,{_TYPED_FOR_IT}])\d{{3}})(?:(?P=mark)\d{{3}})*
        | (?<!\d\ )\d{{1,3}}(?:(?P<mark>\ )\d{{3}})(?:\ \d{{3}}(?!\d))*
    )
    (?:(?P<point>[.,٫])(?P<decimals>\d+))?
    (?!\d|[.,٫٬']\d)
    """,
    regex.VERBOSE,
)


def ungrouped(text: str, language: str) -> str:
    """The text without marks of thousands. A mark that is typed twice, or beside another one before the decimals, tells what
    it is in any language, and the decimals then follow the mark of this language; no thousands follow a leading zero."""
    if _MAYBE.search(text) is None:
        return text
    decimal = "." if language in DECIMAL_POINT else "," if language in DECIMAL_COMMA else ""
    thousands = {".": ",", ",": "."}.get(decimal)

    def plain(number: regex.Match[str]) -> str:
        mark, point, whole = number["mark"], number["point"], number["whole"]
        if mark == point:  # 1.234.5 is no number
            told = point is None
        elif mark == " ":
            told = language in _SPACED
        else:
            told = mark is None or mark in _TYPED_FOR_IT or mark == thousands or point is not None or whole.count(mark) > 1
        if not told:
            return number[0]
        digits = "".join(filter(str.isdigit, whole))
        return f"{digits}{decimal or point}{number['decimals']}" if point in (".", ",") else digits + number[0][len(whole) :]

    return _GROUPED.sub(plain, text)
