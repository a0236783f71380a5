"""A tokenizer's chat template: what it writes round a prompt, what it puts after a reply, which values it reads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from jinja2 import Environment, TemplateError, meta, nodes

from rollout.config import PolicySettings
from rollout.errors import PolicyError, SettingsError, first_line

if TYPE_CHECKING:
    from transformers import AddedToken, PreTrainedTokenizerBase

Chat = list[dict[str, str]]

ASKED, REPLIED, ASKED_AGAIN, SAID = "Zxq1", "Zxq2", "Zxq3", "Zxq4"  # one word each, which no template holds itself
GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")  # transformers' own tag, which renders nothing
OF_THE_CALL = {"messages", "add_generation_prompt"}
REFUSALS = (TemplateError, TypeError, ValueError, KeyError)
DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ"
CLOCK = "strftime_now"
OPENING, CLOSING = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Ending:
    """How replies end. taught: token ids that follow a gold answer; heeded: each of these tokens ends a reply, and so does each
    of `texts`."""

    taught: tuple[int, ...] = ()
    heeded: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


class ChatTemplate:
    """Raises SettingsError for settings that the template does not read or refuses, PolicyError for one that cannot be used."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", settings: PolicySettings):
        self._tokenizer, self._args = tokenizer, settings.chat_template_args
        self._system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
        try:
            self._text = tokenizer.get_chat_template()
            parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(GENERATION.sub("", self._text))
        except REFUSALS as error:
            raise PolicyError(f"policy: its chat template cannot be read ({first_line(error)}); correct it") from error
        self.tells_the_date = any(name.name == CLOCK for name in parsed.find_all(nodes.Name))
        self._known = meta.find_undeclared_variables(parsed)
        if settings.template_date is not None and self.tells_the_date:
            self._text = _clock_of(settings.template_date) + self._text
        self._check(settings)

    def prompts(self, texts: Sequence[str]) -> list[str]:
        """Each as the user's turn, up to where the reply begins."""
        return self._rendered([[*self._system, {"role": "user", "content": text}] for text in texts], True)

    def opens_a_thought(self) -> bool:
        """Whether a prompt ends inside of one, so that replies close it without having opened it."""
        return self.prompts([ASKED])[0].rstrip().endswith(OPENING)

    def ending(self) -> Ending:
        """What follows a last turn of the assistant; where that is nothing, what parts such a turn from the next one."""
        dialogue = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLIED}]
        try:
            [after] = self._rendered([dialogue], False)
        except REFUSALS as error:
            raise PolicyError(f"policy: its chat template refuses a reply ({first_line(error)}); correct it") from error
        if REPLIED not in after:
            raise PolicyError("policy: its chat template leaves a reply out, so that its end is not known; correct it")
        after = after.rpartition(REPLIED)[2]
        if after.strip():
            return self._ending(after, teach_text=True)
        try:
            [whole] = self._rendered([[*dialogue, {"role": "user", "content": ASKED_AGAIN}]], False)
        except REFUSALS:  # it takes one turn and no more
            return Ending()
        between = whole.rpartition(REPLIED)[2].partition(ASKED_AGAIN)[0]
        return self._ending(between, teach_text=False) if between.strip() else Ending()

    def _ending(self, after: str, teach_text: bool) -> Ending:
        """The first token of its own kind in `after`, or else its words: taught unless they only begin the next turn."""
        own = [(after.find(token.content), -len(token.content), i) for i, token in self._own_tokens() if token.content in after]
        place = min(own, default=(len(after),))[0]
        own_token = tuple(token for _, _, token in sorted(own)[:1])
        before = after[:place]
        if not before.strip():
            return Ending(own_token, own_token)
        text = before.strip() if teach_text else before.rstrip()
        taught = self._tokens_after_a_reply(before.rstrip())
        if not teach_text or self._tokenizer.unk_token_id in taught:
            return Ending(heeded=own_token, texts=(text,))
        return Ending(taught, heeded=(*(taught if len(taught) == 1 else ()), *own_token), texts=(text,))

    def _own_tokens(self) -> "list[tuple[int, AddedToken]]":
        """Those that stand for themselves wherever they are met in a text."""
        return [(i, token) for i, token in self._tokenizer.added_tokens_decoder.items() if token.content.strip()]

    def _tokens_after_a_reply(self, text: str) -> tuple[int, ...]:
        alone, both = self._tokenizer([REPLIED, REPLIED + text], add_special_tokens=False)["input_ids"]
        shared = next((i for i, (a, b) in enumerate(zip(alone, both, strict=False)) if a != b), len(alone))
        return tuple(both[shared:])

    def _rendered(self, chats: list[Chat], add_generation_prompt: bool) -> list[str]:
        return self._tokenizer.apply_chat_template(
            chats, chat_template=self._text, tokenize=False, add_generation_prompt=add_generation_prompt, **self._args
        )

    def _check(self, settings: PolicySettings) -> None:
        for name in self._args:
            if name in OF_THE_CALL or name not in self._known:
                known = sorted(self._known - OF_THE_CALL - {CLOCK, *self._tokenizer.special_tokens_map})
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
            [rendered] = self._rendered([chat], True)
        except REFUSALS as error:
            return f"refuses it ({first_line(error)})"
        return None if text in rendered else "leaves it out"


def _clock_of(day: date) -> str:
    """Jinja that stands for transformers' clock and always tells the beginning of `day`."""
    told = {f"%{dash}{letter}": day.strftime(f"%{dash}{letter}") for letter in DIRECTIVES for dash in ("", "-")}
    replaced = "".join(f"|replace({wanted!r}, {text!r})" for wanted, text in told.items() if not text.startswith("%"))
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"
