import pytest

from rollout.numerals import DECIMAL_COMMA, DECIMAL_POINT, ungrouped
from rollout.text import LANGUAGES


@pytest.mark.parametrize(
    ("language", "text", "plain"),
    [
        ("en", "1,000 and 1,000.50", "1000 and 1000.50"),
        ("de", "1.000 und 1.000,50", "1000 und 1000,50"),
        ("de", "3,141 und 0,125", "3,141 und 0,125"),
        ("en", "3.141 and 0.125 and 0,125", "3.141 and 0.125 and 0,125"),
        ("zh", "3.141", "3.141"),
        ("es", "2.500.000", "2500000"),
        ("fr", "12 345,6", "12345,6"),
        ("fr", "1\u00a0000 1\u202f000 1\u2009000", "1000 1000 1000"),
        ("en", "1\u00a0000 1 000", "1000 1 000"),
        ("ru", "1 000 000 2020 100", "1000000 2020 100"),
        ("hi", "1,00,000 और 12,34,567.5", "100000 और 1234567.5"),
        ("ar", "١٬٠٠٠٫٥", "١٠٠٠٫٥"),
        ("de", "1'000", "1000"),
        # the mark tells what it is, whatever the language has
        ("en", "1.000,50 1.000.000", "1000.50 1000000"),
        ("de", "1,000.50 1,000,000", "1000,50 1000000"),
        ("und", "1.000,50 1,000.50 1,000,000", "1000,50 1000.50 1000000"),
        ("und", "1,000 1.000", "1,000 1.000"),
        # no numbers
        ("de", "12.05.2020 192.168.1.1 1.234.5 020.100", "12.05.2020 192.168.1.1 1.234.5 020.100"),
        ("en", "1,0000 12,34", "1,0000 12,34"),
    ],
)
def test_thousands_are_not_marked(language, text, plain):
    assert ungrouped(text, language) == plain
    assert ungrouped(plain, language) == plain


def test_a_language_has_one_decimal_mark():
    assert not DECIMAL_POINT & DECIMAL_COMMA and DECIMAL_POINT | DECIMAL_COMMA < LANGUAGES
