"""Torch's autograd inside a custom operator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def recording(work: Callable[[], R]) -> R:
    """The result of `work()`, called where torch records operations: inside a
    custom operator it does not, whatever the grad mode, but a new thread
    begins with recording on. An exception of `work` reaches the caller."""
    result: list[R] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body, name="ostinato-recording")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
