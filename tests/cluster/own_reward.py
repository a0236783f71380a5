from rollout.types import Passage, Prompt


def one_each(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [1.0] * len(responses)


def never_a_number(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [float("nan")] * len(responses)
