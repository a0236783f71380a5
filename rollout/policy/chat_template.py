"""A tokenizer's chat template: what it writes round a prompt, which values it reads, which day it is."""

import re
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from jinja2 import Environment, TemplateError, meta, nodes

from rollout.config import PolicySettings
from rollout.errors import PolicyError, SettingsError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = list[dict[str, str]]

ASKED, SAID = "Zxq1", "Zxq4"  # one word each, which no template holds itself
GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")  # transformers' own tag, which renders nothing
OF_THE_CALL = {"messages", "add_generation_prompt"}
REFUSALS = (TemplateError, TypeError, ValueError, KeyError)
DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ"
CLOCK = "strftime_now"


class ChatTemplate:
    """Raises SettingsError for settings that the template does not read or refuses, PolicyError for one that cannot be used."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", settings: PolicySettings):
        self.tokenizer, self._args = tokenizer, settings.chat_template_args
        self.system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
        try:
            self.text = tokenizer.get_chat_template()
            parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(GENERATION.sub("", self.text))
        except REFUSALS as error:
            raise PolicyError(f"policy: its chat template cannot be read ({first_line(error)}); correct it") from error
        self.tells_the_date = any(name.name == CLOCK for name in parsed.find_all(nodes.Name))
        self._known = meta.find_undeclared_variables(parsed)
        if settings.template_date is not None and self.tells_the_date:
            self.text = _clock_of(settings.template_date) + self.text
        self._check(settings)

    def prompts(self, texts: Sequence[str]) -> list[str]:
        """Each as the user's turn, up to where the reply begins."""
        return self.rendered([[*self.system, {"role": "user", "content": text}] for text in texts], True)

    @cached_property
    def prompt_end(self) -> str:
        """What follows the question in a prompt."""
        return self.prompts([ASKED])[0].rpartition(ASKED)[2]

    @cached_property
    def own_tokens(self) -> dict[str, int]:
        """Ids of those that stand for themselves wherever they are met in a text."""
        return {token.content: id for id, token in self.tokenizer.added_tokens_decoder.items() if token.content.strip()}

    def rendered(self, chats: list[Chat], add_generation_prompt: bool) -> list[str]:
        return self.tokenizer.apply_chat_template(
            chats, chat_template=self.text, tokenize=False, add_generation_prompt=add_generation_prompt, **self._args
        )

    def _check(self, settings: PolicySettings) -> None:
        for name in self._args:
            if name in OF_THE_CALL or name not in self._known:
                known = sorted(self._known - OF_THE_CALL - {CLOCK, *self.tokenizer.special_tokens_map})
                reads = f"it reads {', '.join(known)}" if known else "it reads none"
                raise SettingsError(f"policy.chat_template_args: the model's chat template does not read {name!r}; {reads}")
        if settings.template_date is not None and not self.tells_the_date:
            raise SettingsError("policy.template_date: the model's chat template writes no date; leave it out")
        turn = {"role": "user", "content": ASKED}
        if (problem := self._problem([turn], ASKED)) is not None:
            raise PolicyError(f"policy: the model's chat template {problem}; give one that takes a user's text")
        if settings.system_prompt is not None:
            if (problem := self._problem([{"role": "system", "content": SAID}, turn], SAID)) is not None:
                remedy = "put it into policy.prompt_template"
                raise SettingsError(f"policy.system_prompt: the model's chat template {problem}; {remedy}")

    def _problem(self, chat: Chat, text: str) -> str | None:
        """What becomes of `text`, unless it is written."""
        try:
            [rendered] = self.rendered([chat], True)
        except REFUSALS as error:
            return f"refuses it ({first_line(error)})"
        return None if text in rendered else "leaves it out"


def _clock_of(day: date) -> str:
    """Jinja that stands for transformers' clock and always tells the beginning of `day`."""
    told = {f"%{dash}{letter}": day.strftime(f"%{dash}{letter}") for letter in DIRECTIVES for dash in ("", "-")}
    replaced = "".join(f"|replace({wanted!r}, {text!r})" for wanted, text in told.items() if not text.startswith("%"))
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"
