"""etcd's quorum, which no server's health tells: does any member know a leader?

`POST /v3/maintenance/status` with `{}` is answered also without a quorum, then without `leader` (12 ms, etcd
3.4.23). haproxy checks the members; this only asks what haproxy cannot know.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence

import httpx
import msgspec

from lbha.discovery.endpoints import one_line
from lbha.discovery.peers import tls_context
from lbha.errors import DiscoveryError
from lbha.facts import EtcdFacts, EtcdMember
from lbha.model import Endpoint, Service
from lbha.quorum import believe

INTERVAL = 2.0
INTERVAL_LEADERLESS = 0.5
"""Seconds between questions to all members; more often while nobody knows a leader, until somebody does."""

TIMEOUT = 1.5
"""Seconds. A member without a leader takes 1.0 s for its first answer."""


_ALARM = re.compile(r"alarm:([A-Z]+)")
"""In the `errors` of an answer: `alarm:NOSPACE `, with the member's id before it where it is not 0."""


class _Answer(msgspec.Struct, rename={"learner": "isLearner"}):
    """The gateway writes 64-bit numbers as text, and omits what is empty."""

    leader: str = "0"
    learner: bool = False
    errors: list[str] = []


class EtcdWatch:
    """One etcd service, until cancelled. `members` says whom to ask, each time anew."""

    def __init__(
        self, service: Service, members: Callable[[], Sequence[Endpoint]], changed: Callable[[], None]
    ) -> None:
        self.facts = EtcdFacts(service.name, None, time.time(), ())
        self._service, self._members, self._changed = service, members, changed

    async def run(self) -> None:
        """Ask all members, again and again."""
        while True:
            # A client for a while only: certificates may be replaced on disk.
            try:
                context = tls_context(self._service.tls) if self._service.tls else None
            except DiscoveryError as error:
                self._say([self._unknown(each, str(error)) for each in self._members()])
                await asyncio.sleep(INTERVAL)
                continue
            async with httpx.AsyncClient(verify=context or False, trust_env=False, timeout=TIMEOUT) as client:
                for _ in range(150):
                    asked = [self._ask(client, each, https=context is not None) for each in self._members()]
                    self._say(await asyncio.gather(*asked))
                    await asyncio.sleep(INTERVAL if self.facts.leaderless is None else INTERVAL_LEADERLESS)

    async def _ask(self, client: httpx.AsyncClient, member: Endpoint, *, https: bool) -> EtcdMember:
        url = f"{'https' if https else 'http'}://{member}/v3/maintenance/status"
        try:
            answer = await client.post(url, content=b"{}")
            if answer.status_code != 200:
                return self._unknown(member, f"HTTP {answer.status_code}")
            found = msgspec.json.decode(answer.content, type=_Answer)
        except (httpx.HTTPError, msgspec.MsgspecError, OSError) as error:
            return self._unknown(member, one_line(str(error)) or type(error).__name__)
        has_leader = found.leader not in ("", "0")
        alarms = tuple(sorted({alarm for each in found.errors for alarm in _ALARM.findall(each)}))
        return EtcdMember(self._service.name, member, has_leader, found.learner, None, alarms)

    def _unknown(self, member: Endpoint, problem: str) -> EtcdMember:
        return EtcdMember(self._service.name, member, False, False, problem)

    def _say(self, members: Sequence[EtcdMember]) -> None:
        self.facts = believe(self.facts, members, time.time())
        self._changed()
