"""Tokens that do not move what their logs say, because they take a fee or rebase: the balance says what arrived."""

from collections.abc import Sequence
from dataclasses import replace

from ctrip.blockchain.client import ChainClient
from ctrip.domain.transfers import Sighting

_Growing = tuple[int, bytes, bytes]
"""A block's number, and the address and the token whose balance grew in it."""


def as_arrived(pinned: ChainClient, seen: Sequence[Sighting]) -> list[Sighting]:
    """Return sightings of flagged tokens with what the balance grew by in their block, never more than their logs say.

    Several in one block share the growth in the chain's order; one of which nothing is left is no transfer. Where the
    node does not know balances of that block any more, the log stands: such money counts for no payment either way.
    """
    flagged = {token.address for token in pinned.chain.tokens if token.fee_on_transfer or token.rebasing}
    places = {_place(each) for each in seen if each.token in flagged}
    if not places:
        return list(seen)
    left = _growth(pinned, sorted(places))
    arrived: list[Sighting] = []
    for each in seen:
        growth = left.get(_place(each))
        if growth is None:
            arrived.append(each)
            continue
        amount = min(each.amount, growth)
        left[_place(each)] = growth - amount
        if amount > 0:
            arrived.append(replace(each, amount=amount))
    return arrived


def _place(seen: Sighting) -> _Growing:
    return seen.block_number, seen.recipient, seen.token


def _growth(pinned: ChainClient, places: Sequence[_Growing]) -> dict[_Growing, int]:
    """Return by how much each balance grew in its block; those that the node does not tell are left out."""
    growth: dict[_Growing, int] = {}
    for number in sorted({place[0] for place in places}):
        here = [place for place in places if place[0] == number]
        holders = [(address, token) for _, address, token in here]
        before = pinned.balances_told(holders, block=number - 1)
        after = pinned.balances_told(holders, block=number)
        for place, earlier, later in zip(here, before, after, strict=True):
            if earlier is not None and later is not None:
                growth[place] = max(0, later - earlier)
    return growth
