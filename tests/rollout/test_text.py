import pickle
import unicodedata

import pytest

from reward.metrics import TextMetrics
from rollout.text import TextRules


def metrics_of(language):
    return TextMetrics(TextRules.of(language))


# language, a text, its tokens for F1 and ROUGE
TOKENS = [
    ("zh", "红色的船属于王船长。", list("红色的船属于王船长")),
    ("zh", "我用 Python 3.5，写C++代码！", ["我", "用", "python", "3.5", "写", "c++", "代", "码"]),
    ("zh", "今天-5度，写C++代码", [*"今天", "-5", "度", "写", "c++", "代", "码"]),
    ("ja", "東京タワーは、１０円です。", [*"東京タワーは", "10", *"円です"]),
    ("th", "แมวดำ ๒ ตัว", ["แ", "ม", "ว", "ด", "ำ", "๒", "ตั", "ว"]),
    ("ko", "파란 배는 누구의 것입니까?", ["파란", "배는", "누구의", "것입니까"]),
    ("hi", "नीली नाव किसकी है?", ["नीली", "नाव", "किसकी", "है"]),
    ("ar", "كَتَبَ الوَلَدُ، 3٫5!", ["كَتَبَ", "الوَلَدُ", "3٫5"]),
    ("fa", "می‌خواهم بروم", ["می‌خواهم", "بروم"]),
    ("he", "הסירה של דָוִד.", ["הסירה", "של", "דָוִד"]),
    ("el", "Η ΜΠΛΕ ΒΑΡΚΑ ΤΟΥΣ;", ["η", "μπλε", "βαρκα", "τους"]),
    ("ru", "Я живу в Москве.", ["я", "живу", "в", "москве"]),
    ("vi", "Ông Nguyễn ở đâu?", ["ông", "nguyễn", "ở", "đâu"]),
    ("tr", "IŞIK İstanbul'da", ["ışık", "istanbul", "da"]),
    ("fr", "L’infirmière a 3,5 € à l'hôpital", ["l", "infirmière", "a", "3,5", "à", "l", "hôpital"]),
    ("de", "Das kostet -5 oder 1.000,50 Euro.", ["das", "kostet", "-5", "oder", "1000,50", "euro"]),
    ("ja", "ﾊﾟｿｺﾝはＣ＋＋、３．５", [*"パソコンは", "c++", "3.5"]),
    ("zh", "有1，2和1，000", ["有", "1", "2", "和", "1000"]),
    ("bo", "ལྷ་ས་ཡིན།", ["ལྷ", "ས", "ཡིན"]),  # its points part syllables
    ("ii", "ꆈꌠꁱꂷ", list("ꆈꌠꁱꂷ")),
    ("jv", "ꦲꦏꦸꦩ", ["ꦲ", "ꦏꦸ", "ꦩ"]),
    ("und", "ᥖᥭᥰ ᦺᦑ", ["ᥖ", "ᥭ", "ᥰ", "ᦺ", "ᦑ"]),  # Tai Le, New Tai Lue
    ("fr", "1/2 à 10:30, 10^-5 ou 1e-5", ["1/2", "à", "10:30", "10^-5", "ou", "1e-5"]),
    ("es", "¿De quién es A?", ["de", "quién", "es", "a"]),
    ("en", "the 红色 boat", ["红", "色", "boat"]),  # articles are English, characters are Chinese
    ("en", "It's called 東京。", ["its", "called", "東", "京"]),  # each piece by its own script
    ("en", "Привет, a мир", ["привет", "мир"]),
    ("und", "👍🏽 👨‍👩‍👧 🇫🇷", ["👍🏽", "👨‍👩‍👧", "🇫🇷"]),
    ("fr", "!?", ["!?"]),  # nothing else is said
]


@pytest.mark.parametrize(("language", "text", "tokens"), TOKENS)
def test_tokens_of_answers(language, text, tokens):
    rules = TextRules.of(language)
    assert rules.answer_tokens(text) == tokens
    if language != "en":
        assert rules.rouge_tokens(text) == tokens
    assert rules.answer_tokens(unicodedata.normalize("NFD", text)) == tokens


@pytest.mark.parametrize(("language", "text", "tokens"), TOKENS)
def test_a_text_earns_all_for_itself_in_every_language(language, text, tokens):
    metrics = metrics_of(language)
    other = unicodedata.normalize("NFD", text)
    assert metrics.f1(text, other) == metrics.exact_match(text, other) == metrics.rouge_l(text, other) == 1
    assert metrics.bleu(text, other) == metrics.raw_f1(text, other) == 1
    assert metrics.rouge(text, [other])["rougeL"] == 1
    assert metrics.corpus_bleu([text], [[other]]) in (1, None)


def test_chinese_is_compared_by_characters():
    metrics = metrics_of("zh")
    # 8 of 10 and 10 characters, in the same order
    assert metrics.f1("红色的船属于李船长们", "蓝色的船属于王船长们") == pytest.approx(0.8)
    assert metrics.rouge_l("红色的船属于李船长们", "蓝色的船属于王船长们") == pytest.approx(0.8)
    assert metrics.f1("船的红色", "红色的船") == 1 and metrics.rouge_l("船的红色", "红色的船") == pytest.approx(2 / 4)
    assert metrics.exact_match("红色的船", "红色的船。") == 1


def test_accented_letters_are_letters():
    metrics = metrics_of("fr")
    right = "la liberté éclairée d'Orléans"
    for wrong in ("la libert clair Orl ans", "la liberte eclairee d'Orleans"):
        for metric in (metrics.f1, metrics.rouge_l, metrics.bleu):
            assert metric(wrong, right) < metric(right, right) == 1
        assert metrics.rouge_l(wrong, right) <= 0.4 + 1e-9  # la and d are the same, of 5 and 5 words


@pytest.mark.parametrize("language", ["en", "fr", "zh"])
def test_straight_and_curly_quotes_earn_the_same(language):
    metrics = metrics_of(language)
    straight, curly = "it's \"so\" good, l'été", "it’s “so” good, l‘été"
    for metric in (metrics.f1, metrics.exact_match, metrics.rouge_l, metrics.bleu, metrics.raw_f1):
        assert metric(straight, curly) == metric(curly, straight) == 1


ROUGE_IN_ENGLISH = [
    ("the 红色 boat", ["the", "红", "色", "boat"]),
    ("It's called 東京。", ["it", "s", "called", "東", "京"]),
    ("Привет, a мир", ["привет", "a", "мир"]),
]


@pytest.mark.parametrize(("text", "tokens"), ROUGE_IN_ENGLISH)
def test_rouge_in_english_has_the_words_of_rouge_score_beside_those_of_other_scripts(text, tokens):
    assert TextRules.of("en").rouge_tokens(text) == tokens


def test_a_word_is_the_same_beside_any_other():
    metrics = metrics_of("en")
    # its, called of 4 and 3 tokens; it, s, called of 5 and 4
    assert metrics.f1("It's called 東京", "It's called Tokyo") == pytest.approx(2 * 2 / 7)
    assert metrics.rouge_l("It's called 東京", "It's called Tokyo") == pytest.approx(2 * 3 / 9)


@pytest.mark.parametrize(
    ("language", "text", "reference"),
    [
        ("en", "–5", "5"),
        ("de", "–5", "5"),
        ("fr", "–5 °C", "5 °C"),
        ("zh", "气温是－5度", "气温是5度"),
        ("ja", "－３", "３"),
        ("en", "-₹5", "₹5"),
        ("de", "±5", "5"),
        ("en", "<5", ">5"),
        ("zh", "≤5", "≥5"),
        ("de", "3,5", "35"),
        ("de", "3.5", "35"),
        ("en", "C++11", "C11"),
        ("de", "C#7", "C7"),
        ("en", "A-", "A"),
        ("zh", "血型是AB-", "血型是AB"),
        ("en", "1/2", "12"),
        ("en", "10^5", "105"),
        ("en", "10^-5", "10^5"),
        ("en", "1e-5", "1e5"),
        ("en", "1:30", "130"),
        ("de", "1:30", "1 30"),
        ("en", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        ("fr", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        ("fa", "می‌خواهم", "میخواهم"),
    ],
)
def test_what_tells_numbers_and_names_apart_counts(language, text, reference):
    metrics = metrics_of(language)
    assert metrics.exact_match(text, reference) == metrics.exact_match(reference, text) == 0
    assert metrics.f1(text, reference) < 1


@pytest.mark.parametrize(
    ("language", "text", "reference"),
    [
        ("en", "−5", "-5"),
        ("en", "–5", "-5"),
        ("en", "﹣5", "-5"),
        ("ja", "－５", "-5"),
        ("de", "-$5", "-5"),
        ("en", "well‐known", "well-known"),
        ("ja", "３．５", "3.5"),
        ("zh", "ＩＢＭ", "IBM"),
        ("en", "I- I see", "I I see"),
        ("en", "Paris\u200b", "Paris"),
        ("en", "\u200eParis\ufeff", "Paris"),
        ("de", "Auf\u200clage", "Auf\u00adlage"),
        ("fa", "\u200cمی", "می"),
        ("zh", "葛\U000e0100城", "葛城"),
        ("ko", "서울\u3164", "서울"),
        ("en", "❤️", "❤"),
    ],
)
def test_what_is_typed_otherwise_or_invisible_does_not_count(language, text, reference):
    metrics = metrics_of(language)
    assert metrics.exact_match(text, reference) == metrics.exact_match(reference, text) == metrics.f1(text, reference) == 1


def test_english_articles_are_dropped_in_english_alone():
    assert metrics_of("en").exact_match("a cat", "the cat") == 1
    assert metrics_of("fr").exact_match("il a faim", "il faim") == 0


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("zh", "猫在iPhone上", ["猫", "在", "iphone", "上", "猫在"]),
        ("ja", "猫、犬だ", ["猫", "犬", "だ", "犬だ"]),
        ("fr", "À qui est le bateau bleu ?", ["bateau", "bleu"]),
        ("ru", "Я и он в Москве", ["москве"]),
        ("ko", "서울은 배의 대한민국", ["서울은", "배의", "대한민국", "서울", "울은", "대한", "한민", "민국"]),
        ("bo", "ལྷ་ས།ཡིན", ["ལྷ", "ས", "ཡིན", "ལྷས"]),
        ("de", "12/2020 <5", ["12", "2020", "5"]),
        ("pl", "A co z nim ?", ["a", "co", "z", "nim"]),
        ("hi", "नाव का", ["नाव", "का"]),
        ("en", "Is it a Beyoncé 3.5 o'clock x", ["beyoncé", "clock"]),
        ("en", "a 猫在 the", ["猫", "在", "猫在"]),
    ],
)
def test_tokens_that_are_searched(language, text, tokens):
    assert TextRules.of(language).search_tokens(text) == tokens


def test_words_are_counted_between_spaces_or_by_characters():
    assert TextRules.of("fr").raw_tokens("Bonjour, l'ami !") == ["Bonjour,", "l'ami", "!"]
    assert TextRules.of("zh").raw_tokens("红色的船。 OK") == ["红", "色", "的", "船。", "OK"]


@pytest.mark.parametrize(
    ("language", "bleu"),
    [
        ("en", "13a"),
        ("fr", "13a"),
        ("hi", "13a"),
        ("zh", "zh"),
        ("th", "char"),
        ("lo", "char"),
        ("km", "char"),
        ("bo", "char"),
        ("dz", "char"),
    ],
)
def test_bleu_has_the_tokenizer_of_the_language(language, bleu):
    rules = TextRules.of(language)
    assert rules.bleu == bleu and f"BLEU on sacrebleu's {bleu} tokens" in rules.told()
    assert pickle.loads(pickle.dumps(rules)) == rules


@pytest.mark.parametrize(
    ("language", "reference", "bleu"),
    [
        ("en", "Il était là.", "13a"),
        ("en", "they call it 東京", "13a"),
        ("en", "红色的船属于王船长", "zh"),
        ("en", "船は田中さんのものです", "char"),
        ("en", "แมวดำ", "char"),
        ("und", "ꦲꦏꦸꦩꦔꦤ꧀ꦱꦼꦒ", "char"),
        ("th", "a black cat", "13a"),
        ("th", "红色的船", "zh"),
        ("zh", "a red boat", "zh"),
        ("zh", "东京タワー", "zh"),
    ],
)
def test_bleu_has_the_tokenizer_of_the_references_script(language, reference, bleu):
    assert TextRules.of(language).bleu_against([reference]) == bleu


def test_each_text_of_a_corpus_has_the_bleu_of_its_script():
    chinese, english = ("红色的船属于李船长", "红色的船属于王船长"), ("the red boat is mine", "the red boat is mine")
    in_chinese = metrics_of("zh").bleu_counts([chinese[0]], [[chinese[1]]])[0]
    both = metrics_of("en").bleu_counts([chinese[0], english[0]], [[chinese[1]], [english[1]]])
    assert both[0].tolist() == in_chinese.tolist() == [9, 9, 8, 6, 4, 3, 9, 8, 7, 6]
    assert both[1].tolist() == [5, 5, 5, 4, 3, 2, 5, 4, 3, 2]


def test_japanese_bleu_takes_mecab_where_it_is_installed(monkeypatch):
    for found, bleu in ((object(), "ja-mecab"), (None, "char")):
        monkeypatch.setattr("rollout.text.importlib.util.find_spec", lambda name, found=found: found)
        assert TextRules.of("ja").bleu == bleu


def test_an_undecided_language_has_no_rules():
    with pytest.raises(ValueError, match="not decided"):
        TextRules.of("auto")
