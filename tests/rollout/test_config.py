import pytest
from pydantic import BaseModel, ValidationError

from rollout.config import DataSettings, PolicySettings, RolloutSettings, TinySettings, check_template

SECTIONS = (DataSettings, TinySettings, PolicySettings, RolloutSettings)


def test_a_template_may_name_what_can_be_filled_in():
    assert check_template("{query} {title} {text}", {"query", "text"}, {"title"}) == "{query} {title} {text}"
    assert check_template("{{{question}}}", {"question"}) == "{{{question}}}"


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("R:", "lacks {question}"),
        ("{{question}}", "lacks {question}"),
        ("{question} {persona}", "has {persona}; only ['question'] can be filled in"),
        ("{question} {}", "has {}"),
        ("{question} {0}", "has {0}"),
        ("{question.upper}", "lacks {question}"),
        ("{question} {", "is no template"),
        ("{question} }", "is no template"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, shown):
    with pytest.raises(ValueError) as caught:
        check_template(template, {"question"})
    assert shown in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{question:d}", "{question:{x}}", "{question!x}"])
def test_a_format_that_would_fail_on_text_is_refused(template):
    with pytest.raises(ValueError):
        check_template(template, {"question"})


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("prompt_template", "R:"),
        ("prompt_template", "{question} {title}"),
        ("passage_template", "{query}"),
        ("passage_template", "{title}"),
        ("passage_template", "{query} {text} {question}"),
        ("response_template", "say"),
        ("response_template", "{answer} {question}"),
    ],
)
def test_each_template_setting_is_checked(name, template):
    with pytest.raises(ValidationError, match=name):
        PolicySettings(**{name: template})


def test_the_sentinel_form_is_a_template_like_any_other():
    settings = PolicySettings(prompt_template="{question} R: <extra_id_0>", response_template="<extra_id_0> {answer}")
    assert settings.response_template.format(answer="yes") == "<extra_id_0> yes"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_a_line_of_help(section):
    for name, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert is_section or (field.description and "\n" not in field.description), name


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"group_size": 0},
        {"max_new_tokens": -1},
        {"group_sise": 8},
    ],
)
def test_values_out_of_range_and_unknown_names_are_refused(values):
    with pytest.raises(ValidationError):
        RolloutSettings(**values)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RolloutSettings().group_size = 4
