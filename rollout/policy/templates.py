"""The templates that suit a family of models, where the settings name none."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rollout.config import PolicySettings
from rollout.errors import SettingsError, first_line

FID = {  # LAPDOG's own
    "prompt_template": "dialog with R's persona: {question} R:",
    "passage_template": "{query} story title: {title} story: {text}",
    "response_template": "{answer}",
}
CHAT = {"prompt_template": "{question}", "passage_template": "{title}\n{text}", "response_template": "{answer}"}
PLAIN = {"prompt_template": "{question} R:", "passage_template": "{title}\n{text}", "response_template": " {answer}"}


def with_templates(settings: PolicySettings, tokenizer: PreTrainedTokenizerBase | None, is_t5: bool) -> PolicySettings:
    """Raises SettingsError for a template that the family has no use for."""
    is_chat = not is_t5 and tokenizer is not None and tokenizer.chat_template is not None
    defaults = FID if is_t5 else CHAT if is_chat else PLAIN
    filled = settings.model_copy(update={name: text for name, text in defaults.items() if getattr(settings, name) is None})
    names_query = "{query}" in (filled.passage_template or "")
    if is_t5 and settings.n_context and not names_query:
        raise SettingsError("policy.passage_template: lacks {query}; a T5 reads each passage with the query, put it there")
    if not is_t5 and names_query:
        raise SettingsError(
            "policy.passage_template: has {query}, which a causal LM reads once after all passages; leave it out"
        )
    if settings.system_prompt is not None and not is_chat:
        raise SettingsError("policy.system_prompt: has no effect on a model without a chat template; leave it out")
    if settings.system_prompt is not None and tokenizer is not None:
        chat = [{"role": "system", "content": settings.system_prompt}, {"role": "user", "content": "?"}]
        try:
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            problem = f"the model's chat template refuses it ({first_line(error)})"
            raise SettingsError(f"policy.system_prompt: {problem}; put it into policy.prompt_template") from error
    return filled
