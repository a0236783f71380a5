from rollout.types import Passage, Prompt


def one_each(prompt: Prompt, passages: tuple[Passage, ...], responses: list[str]) -> list[float]:
    return [1.0] * len(responses)
