"""The templates that suit a family of models, where the settings name none."""

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from rollout.config import PolicySettings
from rollout.errors import SettingsError
from rollout.policy.chat_template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rollout.policy.family import Family

Templates = Mapping[str, str]  # by their names in PolicySettings

PASSAGE = "{title}\n{text}"
# of all families, which name theirs: settings are compared with them where no model is loaded
FUSED: Templates = {  # LAPDOG's own
    "prompt_template": "dialog with R's persona: {question} R:",
    "passage_template": "{query} story title: {title} story: {text}",
    "response_template": "{answer}",
}
PROMPT: Templates = {"prompt_template": "{question} R:", "passage_template": PASSAGE, "response_template": " {answer}"}
CHAT: Templates = {"prompt_template": "{question}", "passage_template": PASSAGE, "response_template": "{answer}"}
DEFAULT_TEMPLATES = (FUSED, PROMPT, CHAT)


def with_templates(settings: PolicySettings, tokenizer: "PreTrainedTokenizerBase | None", family: "Family") -> PolicySettings:
    """The day that a chat template writes is today unless the settings have one, so that it stands in config.yaml.

    Raises SettingsError for a template that the family has no use for, and as `ChatTemplate` does.
    """
    chats = family.chats(tokenizer)
    defaults = (chats and family.chat_templates) or family.templates
    filled = settings.model_copy(update={name: text for name, text in defaults.items() if getattr(settings, name) is None})
    names_query = "{query}" in (filled.passage_template or "")
    if family.fuses_passages and settings.n_context and not names_query:
        raise SettingsError(
            f"policy.passage_template: lacks {{query}}; a {family.name} reads each passage with the query, put it there"
        )
    if not family.fuses_passages and names_query:
        raise SettingsError(
            f"policy.passage_template: has {{query}}, which a {family.name} reads once after all passages; leave it out"
        )
    if not chats or tokenizer is None:
        for name in ("system_prompt", "chat_template_args", "template_date"):
            if getattr(settings, name):
                raise SettingsError(f"policy.{name}: has no effect on a model without a chat template; leave it out")
    elif settings.template_date is None and ChatTemplate(tokenizer, settings).tells_the_date:
        return filled.model_copy(update={"template_date": date.today()})
    return filled
