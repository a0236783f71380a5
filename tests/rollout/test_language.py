import json

import pytest

from rollout.data import demo
from rollout.language import language_of, language_of_texts
from rollout.retrieval.bm25 import Bm25
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.open import LEXICAL
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.source import LocalSource
from rollout.text import TextRules
from rollout.types import Prompt

CHINESE = [
    ("红色的船属于王船长。", "红色的船属于谁？"),
    ("蓝色的船属于李船长。", "谁拥有蓝色的船？"),
    ("面包师每天早上四点烤面包。", "面包师几点烤面包？"),
    ("老师在河边的学校教数学。", "老师教什么？"),
    ("医生在山上的医院工作。", "医生在哪里工作？"),
    ("花园里有三只白色的猫。", "花园里有几只猫？"),
    ("昨天的足球比赛下雨取消了。", "足球比赛为什么取消？"),
    ("图书馆周末不开门。", "图书馆周末开门吗？"),
]
FRENCH = [
    ("Le bateau rouge est à Renée.", "À qui est le bateau rouge ?"),
    ("Le bateau bleu est à Jérôme.", "À qui est le bateau bleu ?"),
    ("Le boulanger cuit le pain à quatre heures.", "Quand le boulanger cuit-il le pain ?"),
    ("La maîtresse enseigne près de la rivière.", "Où enseigne la maîtresse ?"),
    ("L'infirmière travaille à l'hôpital.", "Où travaille l’infirmière ?"),
    ("Trois chats blancs dorment au jardin.", "Combien de chats dorment au jardin ?"),
    ("Le match a été annulé à cause de la pluie.", "Pourquoi le match a-t-il été annulé ?"),
    ("La bibliothèque est fermée le dimanche.", "La bibliothèque est-elle fermée le dimanche ?"),
]
ENGLISH = [
    ("The red boat is Captain King's.", "Whose is the red boat ?"),
    ("Cats sleep in the garden.", "Where do cats sleep ?"),
]
JAPANESE = [
    ("赤い船は田中船長のものです。", "赤い船は誰のものですか？"),
    ("パン屋は朝四時にパンを焼きます。", "パン屋は何時にパンを焼きますか？"),
    ("図書館は週末に閉まります。", "図書館はいつ閉まりますか？"),
]
THAI = [
    ("เรือสีแดงเป็นของกัปตันสมชาย", "เรือสีแดงเป็นของใคร"),
    ("คนทำขนมปังอบขนมปังตอนตีสี่", "คนทำขนมปังอบขนมปังเมื่อไร"),
    ("ห้องสมุดปิดวันอาทิตย์", "ห้องสมุดปิดวันไหน"),
]
HINDI = [
    ("लाल नाव कप्तान राम की है।", "लाल नाव किसकी है?"),
    ("रसोइया सुबह चार बजे रोटी बनाता है।", "रसोइया रोटी कब बनाता है?"),
    ("पुस्तकालय रविवार को बंद रहता है।", "पुस्तकालय कब बंद रहता है?"),
]


def corpus_of(tmp_path, texts):
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(json.dumps({"id": f"p{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return Corpus.open(file, tmp_path / "cache")


@pytest.mark.parametrize(
    ("language", "pairs"),
    [
        ("zh", CHINESE),
        ("fr", FRENCH),
        ("ja", JAPANESE),
        ("th", THAI),
        ("hi", HINDI),
        ("en", ENGLISH),
        ("zh", [*CHINESE, *ENGLISH]),
    ],
)
def test_every_question_finds_its_passage_in_the_language_of_its_data(tmp_path, language, pairs):
    corpus = corpus_of(tmp_path, [text for text, _ in pairs])
    prompts = [Prompt(id=str(i), question=question, answers=(text,)) for i, (text, question) in enumerate(pairs)]
    assert language_of(prompts, corpus) == language
    found = Retriever(1, LocalSource(corpus, "all", LEXICAL, Bm25(corpus, TextRules.of(language)))).retrieve(prompts)
    assert [retrieval.passages[0].id for retrieval in found] == [f"p{i}" for i in range(len(pairs))]
    assert all(score > 0 for retrieval in found for score in retrieval.scores)


def test_a_chinese_question_finds_its_passage_among_english_ones(tmp_path):
    corpus = corpus_of(tmp_path, [text for text, _ in [*ENGLISH, *ENGLISH, *CHINESE[:2]]])
    prompt = Prompt(id="q", question="谁拥有蓝色的船？", answers=("李船长",))
    [found] = Retriever(1, LocalSource(corpus, "all", LEXICAL, Bm25(corpus, TextRules.of("en")))).retrieve([prompt])
    assert found.passages[0].text == "蓝色的船属于李船长。"


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (
            "de",
            ["Wer hat das Brot gebacken?", "Der Bäcker hat es um vier Uhr gebacken.", "Das blaue Boot ist das von Herrn Li."],
        ),
        ("es", ["¿De quién es el barco azul?", "El barco azul es de José.", "El panadero hornea el pan a las cuatro."]),
        ("it", ["Di chi è la barca blu?", "La barca blu è di Giovanni."]),
        ("pt", ["De quem é o barco azul?", "O barco azul é do João."]),
        ("nl", ["Van wie is de blauwe boot?", "De blauwe boot is van Jan."]),
        ("tr", ["Bu tekne kimin?", "Mavi tekne İsmail'in, kırmızı tekne ise Ayşe'nin.", "Fırıncı ekmeği sabah pişirir."]),
        ("ru", ["Кому принадлежит синяя лодка?", "Она не моя, а его.", "Пекарь печёт хлеб в четыре часа утра, и он не спит."]),
        ("ko", ["파란 배는 누구의 것입니까?", "김 씨의 것입니다."]),
        ("ar", ["لمن القارب الأزرق؟", "القارب الأزرق لأحمد."]),
        ("he", ["של מי הסירה הכחולה?"]),
        ("el", ["Ποιανού είναι η μπλε βάρκα;"]),
        ("vi", ["Chiếc thuyền xanh là của ai?", "Của ông Nguyễn."]),
        ("km", ["ទូកពណ៌ខៀវជារបស់នរណា"]),
        ("lo", ["ເຮືອສີຟ້າເປັນຂອງໃຜ"]),
        ("ja", ["東京", "織田信長", "誰のものですか", "大阪"]),
        ("pl", ["Czyja jest niebieska łódź?", "Niebieska łódź należy do Józefa."]),
        ("uk", ["Кому належить синій човен?", "Синій човен належить Івану."]),
        ("hr", ["Čiji je plavi brod?", "Kada pekar peče kruh?", "Kruh peče u četiri ujutro.", "Gdje radi medicinska sestra?"]),
        ("sl", ["Čigava je modra ladja?", "Kdaj pek peče kruh?", "Kruh peče ob štirih zjutraj."]),
        ("sk", ["Komu patrí modrá loď?", "Kedy pekár pečie chlieb?", "Koľko mačiek spí v záhrade?"]),
        ("cs", ["Komu patří modrá loď?", "Kdy pekař peče chléb?", "Kolik koček spí na zahradě?"]),
        ("hu", ["Kié a kék hajó?", "Mikor süti a pék a kenyeret?", "Hány macska alszik a kertben?"]),
        ("ro", ["A cui este barca albastră?", "Când coace brutarul pâinea?", "Câte pisici dorm în grădină?"]),
        ("eu", ["Norena da itsasontzi urdina?", "Noiz erretzen du ogia okinak?", "Non lan egiten du erizainak?"]),
        ("yo", ["Níbo ni nọ́ọ̀sì ti ń ṣiṣẹ́?", "Ó ń ṣiṣẹ́ ní ilé ìwòsàn.", "Ológbò funfun mẹ́ta."]),
        ("ku", ["Keştiya sor ya kê ye?", "Hemşîre li ku dixebite?", "Nanpêj kengî nan dipêje?"]),
        ("fi", ["Kenen on sininen vene?", "Milloin leipuri leipoo leipää?", "Kolme valkoista kissaa."]),
        ("id", ["Siapa pemilik perahu biru?", "Kapan tukang roti memanggang roti?", "Tiga kucing putih tidur di taman."]),
        ("sw", ["Mashua ya bluu ni ya nani?", "Muuguzi anafanya kazi wapi?", "Anafanya kazi hospitalini."]),
        ("az", ["Mavi qayıq kimindir?", "Çörəkçi çörəyi nə vaxt bişirir?", "Bağda üç ağ pişik yatır."]),
        ("sr", ["Чији је плави чамац?", "Када пекар пече хлеб?", "Три беле мачке."]),
        ("fa", ["قایق آبی مال کیست؟", "نانوا چه وقت نان می‌پزد؟"]),
        ("ur", ["نیلی کشتی کس کی ہے؟", "نانبائی روٹی کب پکاتا ہے؟"]),
        ("mr", ["निळी होडी कोणाची आहे?", "बेकर भाकरी कधी भाजतो?"]),
        ("nb", ["Hvem eier den blå båten?", "Når baker bakeren brød?", "Hvor mange katter sover i hagen?"]),
        ("ar", ["المركب الازرق بتاع مين؟", "الممرضة بتشتغل فين؟"]),  # of Egypt
        ("bo", ["གྲུ་སྔོན་པོ་སུའི་རེད།"]),
        ("ii", ["ꆈꌠꁱꂷ"]),
        ("und", ["De quien ye'l barcu azul?", "¿Cuántos gatos duermen nel xardín?", "Trabaya nel hospital."]),  # Asturian
        ("en", ["a b c", "w1 w2", "Tokyo", "Luis Fonsi", "yes"]),
        ("en", ["question number alpha ?", "A", "B"]),
        ("en", ["who is Beyoncé ?", "a naïve café owner, said the señor", "she is a singer"]),
        ("en", ["12", "3.5"]),
        ("en", ["😀", "👍"]),
        ("en", ["who has the boat ?", "谁拥有蓝色的船？", "the captain has it"]),
        ("zh", ["用Python和TensorFlow写代码", "谁拥有蓝色的船？", "the captain"]),
    ],
)
def test_the_language_is_that_of_most_texts(language, texts):
    assert language_of_texts(texts) == language


def test_the_demo_is_english():
    world = demo.generate(0)
    assert language_of(world.train, None) == "en"
    assert language_of_texts(passage.text for passage in world.passages) == "en"
