"""Thoughts inside of replies: the tags that enclose them, and a text without them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

NAME = r"[\w:.-]*(?:think|thought|reason)[\w:.-]*"
CLOSING = re.compile(  # </think>, [/THINK], <|END_THINKING|>, <|end_of_thought|>, <|think_end|> and the like
    rf"</{NAME}>|\[/{NAME}\]|◁/{NAME}▷|<\|/{NAME}\|>|<\|end(?:_of)?_{NAME}\|>|<\|{NAME}_end\|>", re.IGNORECASE
)
ENDS = (("END", "START"), ("END", "BEGIN"), ("end", "start"), ("end", "begin"))
THINK = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """Pairs of what opens and what closes a thought; any closing one closes it."""

    pairs: tuple[tuple[str, str], ...] = (THINK,)

    @classmethod
    def named_in(cls, texts: Iterable[str]) -> "ThoughtTags":
        """`<think>`, and those whose closing tag stands in one of the texts."""
        named = dict.fromkeys(tag for text in texts for tag in CLOSING.findall(text))
        return cls(tuple(dict.fromkeys((THINK, *chain.from_iterable(map(pairs_of, named))))))

    def __or__(self, pairs: Iterable[tuple[str, str]]) -> "ThoughtTags":
        return ThoughtTags(tuple(dict.fromkeys((*self.pairs, *pairs))))

    @property
    def all(self) -> tuple[str, ...]:
        """Longest first: one may begin with another."""
        return tuple(sorted(set(chain.from_iterable(self.pairs)), key=lambda tag: (-len(tag), tag)))

    def are_in(self, text: str) -> bool:
        return any(tag in text for tag in self.all)

    def closing_after(self, text: str) -> str:
        """What closes the thought that begins where the text ends; empty if none does."""
        return next((closing for opening, closing in self.pairs if text.rstrip().endswith(opening)), "")

    def outside(self, text: str, opened: bool = False) -> str:
        """The text without thoughts; of one that is never closed nothing is left. opened: the text begins in one."""
        if not opened and not self.are_in(text):
            return text
        openings, closings = map(set, zip(*self.pairs, strict=True))
        kept: list[str] = []
        inside = opened
        for part in re.split(f"({'|'.join(map(re.escape, self.all))})", text):
            if part in openings:
                inside = True
            elif part in closings:  # one that only closes ends a thought that the prompt began
                kept, inside = kept if inside else [], False
            elif not inside:
                kept.append(part)
        return "".join(kept)


def pairs_of(closing: str) -> list[tuple[str, str]]:
    """The closing tag with each opening one that it may have."""
    if "/" in closing:
        return [(closing.replace("/", "", 1), closing)]
    return [(closing.replace(end, beginning), closing) for end, beginning in ENDS if end in closing]
