"""A user's own reward: imported, made where it is a class, called, and its values checked."""

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from reprlib import repr as short
from typing import Any

import numpy as np

from reward.config import ExtraReward
from rollout.errors import RewardError
from rollout.types import Group

PARAMETERS = ("prompt", "passages", "responses")
# what the user's code may raise; a cancelled task of its own says nothing about ours
RAISED = (Exception, SystemExit, asyncio.CancelledError)

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class LoadedReward:
    """A user's own reward, ready to be called.

    It is called once a group as `function(prompt, passages, responses) -> [number or None] * G`; None says that it does not
    apply to a response. With `batch` it is called once for N groups, with a list of N of each, and returns N such lists.
    A function gets `args` as keyword arguments; a class gets them when it is made, here, and its instance is called.

    Plain functions are called one after the other, outside of any event loop, so that they may run one. What is `async def`
    is awaited, at most `concurrency` calls at a time, always in the same loop: what it keeps open between calls stays usable.
    So this must not be called from within a running loop, nor from two threads at a time.
    """

    def __init__(self, extra: ExtraReward) -> None:
        """Raises RewardError if it cannot be imported, does not take its arguments, or cannot be made."""
        self.extra = extra
        imported = import_reward(extra)
        args = {} if inspect.isclass(imported) else extra.args
        function = _made(imported, extra) if inspect.isclass(imported) else imported
        self._is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        self._function: Callable[..., Any] = partial(function, **args)
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def measure(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """The values for the groups' texts, float64 [G] each, NaN for None.

        Raises RewardError, in one line, if the function raises, which is its `__cause__` then, or returns anything else.
        """
        calls = [groups] if self.extra.batch else [[group] for group in groups]
        made = self._loop.run(self._awaited(calls)) if self._is_async else [self._called(call) for call in calls]
        return [values for of_call in made for values in of_call]

    def _called(self, groups: Sequence[Group]) -> list[np.ndarray]:
        with self._told_as_ours(groups):
            returned = self._function(*self._arguments(groups))
        return self._checked(returned, groups)

    async def _awaited(self, calls: Sequence[Sequence[Group]]) -> list[list[np.ndarray]]:
        """Of several errors, that of the first call is raised, after all calls have ended: none may reach into the next run."""
        free = asyncio.Semaphore(self.extra.concurrency)

        async def one(groups: Sequence[Group]) -> list[np.ndarray]:
            with self._told_as_ours(groups):
                async with free:
                    returned = await self._function(*self._arguments(groups))
            return self._checked(returned, groups)

        made = await asyncio.gather(*map(one, calls), return_exceptions=True)
        for error in (result for result in made if isinstance(result, BaseException)):
            raise error
        return [result for result in made if not isinstance(result, BaseException)]

    def _arguments(self, groups: Sequence[Group]) -> tuple[Any, Any, Any]:
        prompts = [group.prompt for group in groups]
        passages = [group.retrieval.passages for group in groups]
        texts = [[response.text for response in group.responses] for group in groups]
        return (prompts, passages, texts) if self.extra.batch else (prompts[0], passages[0], texts[0])

    @contextlib.contextmanager
    def _told_as_ours(self, groups: Sequence[Group]) -> Iterator[None]:
        try:
            yield
        except RAISED as error:
            raise RewardError(f"{self._place(groups)} raised {_describe(error)}: mend the function or remove it") from error

    def _checked(self, returned: Any, groups: Sequence[Group]) -> list[np.ndarray]:
        if not self.extra.batch:
            return [self._row(returned, groups[0])]
        remedy = f"return a list with one list per prompt, here {len(groups)}, of one number (or None) per response"
        return [self._row(row, group) for row, group in zip(self._listed(returned, groups, remedy), groups, strict=True)]

    def _row(self, returned: Any, group: Group) -> np.ndarray:
        size = len(group.responses)
        remedy = f"return a list with one number (or None) per response, here {size}, each finite as float32"
        values = self._listed(returned, [group], remedy, size)
        for value in values:
            if value is not None and not _is_finite(value):
                raise RewardError(f"{self._place([group])} returned {_one_line(short(value))} among its values: {remedy}")
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)

    def _listed(self, returned: Any, groups: Sequence[Group], remedy: str, size: int | None = None) -> Sequence[Any]:
        """What was returned, if it is a row of `size` things; by default one for each group."""
        values = returned.tolist() if isinstance(returned, np.ndarray) else returned
        if not isinstance(values, list | tuple):
            raise RewardError(f"{self._place(groups)} returned {_one_line(short(values))}: {remedy}")
        if len(values) != (len(groups) if size is None else size):
            raise RewardError(f"{self._place(groups)} returned {len(values)} values: {remedy}")
        return values

    def _place(self, groups: Sequence[Group]) -> str:
        first, *others = (repr(group.prompt.id) for group in groups)
        prompts = f"prompts {first} to {others[-1]} ({len(groups)})" if others else f"prompt {first}"
        return f"reward.extra: {self.extra.function!r} on {prompts}"


def import_reward(extra: ExtraReward) -> Callable[..., Any]:
    """The function or class, imported. Raises RewardError if that fails, yields nothing callable, or takes other arguments."""
    name = extra.function
    module, _, attribute = name.partition(":")
    try:
        imported = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing runs the user's module, which may raise anything
        remedy = "check the spelling and that the module's folder is on PYTHONPATH"
        raise RewardError(f"reward.extra: cannot import {name!r} ({_describe(error)}): {remedy}") from error
    if not callable(imported):
        raise RewardError(f"reward.extra: {name!r} is a {type(imported).__name__}: name a function or a class")
    if not inspect.isclass(imported):
        _check_arguments(extra, imported, PARAMETERS, extra.args)
        return imported
    if "__call__" not in dir(imported):  # which does not look at the class's own class, as hasattr does
        raise RewardError(f"reward.extra: {name!r} is a class without __call__: define __call__(self, {', '.join(PARAMETERS)})")
    _check_arguments(extra, imported, (), extra.args)
    _check_arguments(extra, imported.__call__, ("self", *PARAMETERS), {})
    return imported


def _check_arguments(extra: ExtraReward, function: Callable[..., Any], given: Sequence[str], args: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some that are written in C have none
        return
    try:
        signature.bind(*given, **args)
    except TypeError as error:
        called = ", ".join([*given, *(f"{name}=…" for name in args)])
        remedy = f"mend its args or its parameters, which are {_one_line(str(signature))}"
        raise RewardError(f"reward.extra: {extra.function!r} cannot be called with ({called}) ({error}): {remedy}") from error


def _made(kind: Callable[..., Any], extra: ExtraReward) -> Any:
    try:
        return kind(**extra.args)
    except (Exception, SystemExit) as error:
        remedy = "mend the class or its args"
        raise RewardError(f"reward.extra: {extra.function!r} cannot be made ({_describe(error)}): {remedy}") from error


def _is_finite(value: object) -> bool:
    number = value.item() if isinstance(value, np.generic) else value
    return isinstance(number, int | float) and abs(number) <= _FLOAT32_MAX


def _describe(error: BaseException) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
