"""What surrounds the text of a reply, asked of a chat template: what it writes before one, what ends it, what are thoughts."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from os.path import commonprefix

from rollout.errors import PolicyError, first_line
from rollout.policy.chat_template import ASKED, REFUSALS, Chat, ChatTemplate
from rollout.policy.thoughts import CLOSING, ThoughtTags, pairs_of

REPLIED, ASKED_AGAIN, THOUGHT = "Zxq2", "Zxq3", "Zxq5"  # one word each, which no template holds itself
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")  # of a turn, as templates name them


@dataclass(frozen=True, slots=True)
class Ending:
    """How replies end. taught: token ids that follow a gold answer; heeded: each of these tokens ends a reply, and so does each
    of `texts`, and of `next_turn`, which only begin what another says."""

    taught: tuple[int, ...] = ()
    heeded: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    next_turn: tuple[int, ...] = ()


NO_ENDING = Ending()


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """before: what the template writes between a prompt and the reply. closing: of the thought in which a prompt ends."""

    ending: Ending = NO_ENDING
    before: str = ""
    thoughts: ThoughtTags = ThoughtTags()
    closing: str = ""

    def before_answer(self, answer: str, thoughts_kept: bool) -> str:
        """What a gold answer follows. Where thoughts are kept, or the answer holds some, they are the answer's own."""
        if thoughts_kept or self.thoughts.are_in(answer):
            return "" if self.thoughts.are_in(self.before) else self.before
        closed = not self.closing or self.closing in self.before
        return self.before if closed else f"{self.closing}\n\n{self.before}"


def form_of(template: ChatTemplate, named: ThoughtTags) -> ReplyForm:
    """named: tags of thoughts that are known without asking. Raises PolicyError for a template that takes no reply."""
    try:
        before, after = _round_a_reply(template, {})
    except REFUSALS as error:
        raise PolicyError(f"policy: its chat template refuses a reply ({first_line(error)}); correct it") from error
    marks = (*template.own_tokens, *named.all)
    thoughts = named | _pair_of(template, before, marks)
    return ReplyForm(
        ending=_ending_in(template, after, True) if after.strip() else _ending_between(template),
        before=_beyond(template.prompt_end, before, marks),
        thoughts=thoughts,
        closing=thoughts.closing_after(template.prompt_end),
    )


def _dialogue(template: ChatTemplate, of_reply: dict[str, str]) -> Chat:
    return [*template.system, {"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLIED, **of_reply}]


def _round_a_reply(template: ChatTemplate, of_reply: dict[str, str]) -> tuple[str, str]:
    """What the template writes between a question and its reply, and behind that where nothing follows."""
    [rendered] = template.rendered([_dialogue(template, of_reply)], False)
    before, found, after = rendered.rpartition(REPLIED)
    if not found:
        raise PolicyError("policy: its chat template leaves a reply out, so that its end is not known; correct it")
    return before.rpartition(ASKED)[2], after


def _beyond(prompt_end: str, before: str, marks: Collection[str]) -> str:
    """What `before` a reply is not in the prompt already. Where a prompt ends otherwise than a turn begins, only what a mark
    begins is meant to be said."""
    parting, shared = re.compile(f"({'|'.join(map(re.escape, sorted(marks, key=len, reverse=True)))})"), 0
    for i, (ours, theirs) in enumerate(zip(parting.split(prompt_end), parting.split(before), strict=False)):
        if ours != theirs:
            shared += 0 if i % 2 else len(commonprefix([ours, theirs]))  # every second part is a mark, which is not cut
            break
        shared += len(ours)
    beyond = before[shared:]
    return beyond if shared == len(prompt_end) or beyond.lstrip().startswith(tuple(marks)) else ""


def _pair_of(template: ChatTemplate, before: str, marks: Collection[str]) -> list[tuple[str, str]]:
    """What the template writes round a thought, if it writes thoughts and these are marked by more than words. before: what it
    writes before a reply without one."""
    try:
        thinking, _ = _round_a_reply(template, dict.fromkeys(THOUGHT_FIELDS, THOUGHT))
    except (*REFUSALS, PolicyError):
        return []
    begun, found, closing = (part.strip() for part in thinking.partition(THOUGHT))
    if not found or THOUGHT in closing or not (CLOSING.search(closing) or any(mark in closing for mark in marks)):
        return []
    openings = (_beyond(start, begun, marks).strip() for start in (template.prompt_end, before))
    opening = next(filter(None, openings), None)
    return [(opening, closing)] if opening else pairs_of(closing)


def _ending_between(template: ChatTemplate) -> Ending:
    """Of a template that writes nothing after a reply: what parts it from the next turn. A token that stands before a question
    and not behind one, or begins every text, begins that turn and ends none."""
    asked_again = {"role": "user", "content": ASKED_AGAIN}
    try:
        [whole] = template.rendered([[*_dialogue(template, {}), asked_again]], False)
    except REFUSALS:  # it takes one turn and no more
        return Ending()
    between = whole.rpartition(REPLIED)[2].partition(ASKED_AGAIN)[0]
    found = _ending_in(template, between, False) if between.strip() else Ending()
    begun, tokenizer = template.prompts([ASKED])[0].partition(ASKED)[0], template.tokenizer
    begins = {id for content, id in template.own_tokens.items() if content in begun and content not in template.prompt_end}
    begins |= {tokenizer.bos_token_id} - {tokenizer.eos_token_id}
    return Ending(texts=found.texts, next_turn=found.heeded) if begins.intersection(found.heeded) else found


def _ending_in(template: ChatTemplate, after: str, teach_text: bool) -> Ending:
    """The first token of its own kind in `after`, or else its words, which are taught if `teach_text`."""
    own = [(after.find(content), -len(content), id) for content, id in template.own_tokens.items() if content in after]
    place = min(own, default=(len(after),))[0]
    own_token = tuple(token for _, _, token in sorted(own)[:1])
    before = after[:place]
    if not before.strip():
        return Ending(own_token, own_token)
    text = before.strip() if teach_text else before.rstrip()
    taught = _tokens_after_a_reply(template, before.rstrip())
    if not teach_text or template.tokenizer.unk_token_id in taught:
        return Ending(heeded=own_token, texts=(text,))
    return Ending(taught, heeded=(*(taught if len(taught) == 1 else ()), *own_token), texts=(text,))


def _tokens_after_a_reply(template: ChatTemplate, text: str) -> tuple[int, ...]:
    alone, both = template.tokenizer([REPLIED, REPLIED + text], add_special_tokens=False)["input_ids"]
    shared = next((i for i, (a, b) in enumerate(zip(alone, both, strict=False)) if a != b), len(alone))
    return tuple(both[shared:])
