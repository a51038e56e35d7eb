"""What is believed of an etcd's quorum, from what its members tell. Pure; the clock is a number."""

from __future__ import annotations

from collections.abc import Sequence

from lbha.facts import EtcdFacts, EtcdMember

HOLD = 5.0
"""Seconds without a leader until the quorum counts as lost. After a crash of the leader all survivors tell of
none for about 2 s (measured, etcd 3.4.23), and that is an election, not a loss."""


def believe(before: EtcdFacts, members: Sequence[EtcdMember], now: float) -> EtcdFacts:
    """The facts after every member was asked at `now` (seconds).

    One member with a leader proves the quorum, at once. A loss must last for `HOLD`; it is dated from its
    beginning, and believed until a member knows a leader: silence disproves nothing. Where no member answers
    and no loss is known, nothing is known: they may all be dead, or out of this node's reach.
    """
    answers = [member for member in members if member.problem is None]
    quorum, since, leaderless = before.quorum, before.since, before.leaderless
    if not answers:
        if quorum is not False:
            quorum, leaderless = None, None
    elif any(member.leader for member in answers):
        quorum, leaderless = True, None
    else:
        leaderless = now if leaderless is None else leaderless
        if now - leaderless >= HOLD:
            quorum = False
    if quorum != before.quorum:
        since = leaderless if leaderless is not None else now
    return EtcdFacts(before.service, quorum, since, tuple(members), leaderless)


def alarms(etcd: EtcdFacts) -> frozenset[str]:
    """What its members tell of alarms; the same on each of them as long as they hear each other."""
    return frozenset(alarm for member in etcd.members for alarm in member.alarms)
