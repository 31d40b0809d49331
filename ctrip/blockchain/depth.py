"""How deep transfers lie: confirmations that one endpoint alone tells of are none, where a chain has several.

Two endpoints must have the block that makes a transfer deep enough, as we read it; a block implies all before it. An
endpoint that is merely behind has it later.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import others
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Transfer
from ctrip.errors import NodeRefused, NodeUnavailable


class Depth:
    """Which endpoints have the blocks that make transfers deep.

    `ours` are the newest blocks that were read, oldest first, and what is deeper than they are is so by the first of
    them. `told_by` told of the last one just now, and so of all before it.
    """

    def __init__(
        self, client: ChainClient, transfers: Sequence[Transfer], *, ours: Sequence[Header], told_by: str | None
    ) -> None:
        self._needed = min(2, len(client.endpoints))
        self._deep = {each.id: header for each in transfers if (header := _deep_of(each, ours)) is not None}
        self._told_by = set() if told_by is None else {told_by}
        self._has: dict[int, set[str]] = defaultdict(set)
        self._asked: dict[int, set[str]] = defaultdict(set)

    def is_known(self, transfer: Transfer) -> bool:
        """True where we read the block that makes it deep."""
        return transfer.id in self._deep

    def is_shared(self, transfer: Transfer) -> bool:
        """True where two endpoints have that block; with a single endpoint, where that one has."""
        return len(self._has[self._deep[transfer.id].number] | self._told_by) >= self._needed

    def wanted(self, transfers: Iterable[Transfer]) -> set[int]:
        """Return the numbers of the blocks by which it is still to be told that transfers are deep."""
        return {self._deep[each.id].number for each in transfers if not self.is_shared(each)}

    def note(self, endpoint: str, asked: Iterable[int], blocks: Mapping[int, Header]) -> None:
        """Remember which of the blocks an endpoint has, of the numbers that it was asked for."""
        ours = {header.number: header.hash for header in self._deep.values()}
        for number in asked:
            self._asked[number].add(endpoint)
            if number in blocks and blocks[number].hash == ours[number]:
                self._has[number].add(endpoint)

    def ask_for(self, client: ChainClient, transfers: Sequence[Transfer]) -> None:
        """Ask for what is still wanted: who bears out a receipt may be the one that told how deep it lies."""
        while numbers := self.wanted(transfers):
            heard = self._told_by | set.intersection(*(self._asked[number] for number in numbers))
            other = next(others(client, heard=heard), None)
            if other is None:
                return
            try:
                blocks = other.headers(sorted(numbers))
            except (NodeRefused, NodeUnavailable):
                blocks = {}
            self.note(other.endpoint or "", numbers, blocks)


def _deep_of(transfer: Transfer, ours: Sequence[Header]) -> Header | None:
    """Return the first of our blocks that makes a transfer deep; None where none does."""
    at = bisect_left(ours, transfer.block_number + transfer.required - 1, key=lambda header: header.number)
    return ours[at] if at < len(ours) else None
