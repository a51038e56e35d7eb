"""What a source of backends is given and what it gives back."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from lbha.model import Cluster, Endpoint, Service

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `argument` is what follows the colon in `backends`; `last_good` is empty without memory;
    `timeout` (s) is when the answer is no longer waited for."""

    cluster: Cluster
    service: Service
    argument: str
    last_good: tuple[Endpoint, ...]
    timeout: float


class Source(Protocol):
    """Finds the servers of a service.

    `static` sources read only lbha.toml: they cannot fail, and there is nothing to remember. Where
    `nodes_stand_in`, the service runs on the cluster's own nodes unless the source says otherwise, so they
    are an honest pool for the first start.
    """

    static: ClassVar[bool]
    nodes_stand_in: ClassVar[bool]

    async def find(self, query: Query) -> Sequence[Endpoint]:
        """The whole answer or none: DiscoveryError when any part of it is missing or unusable."""
        ...


def read_file(path: str, limit: int) -> bytes:
    """A regular file's bytes, at most `limit`: a pipe could block and a device never end. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"larger than {limit} bytes")
    return data


async def off_loop(work: Callable[[], _T]) -> _T:
    """Runs blocking work (a lookup, a file) in a thread that may be left behind when time is up.

    An executor will not do: asyncio.run joins its threads, and a resolver may hang for 20 s.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def tell(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(tell, result, failure)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="lbha-off-loop", daemon=True).start()
    return await future
