"""Blocks that may hold more logs than were told: what is doubted, whom that is asked of, and what it costs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from random import Random
from typing import Any

import pytest

from ctrip.blockchain.bloom import mask
from ctrip.blockchain.decoding import Block, LogJson, TransactionJson
from ctrip.blockchain.doubting import MANY, Doubt, bear_out, check_empty, checked_or_distrusted, doubt_of
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, UPGRADED_TOPIC, address_word
from ctrip.blockchain.matching import BlockLogs, checked
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting
from ctrip.errors import BlockVanished, NodeUnavailable
from tests.blockchain.nodes import Clock, Error, Node, client_of, serving
from tests.factories import ADDRESS, OTHER_TOKEN, PAYER, TOKEN, header, tx_hash

HEADER = header(90)
TOKENS = (TOKEN, OTHER_TOKEN)
CALL, PAYMENT = tx_hash("call"), tx_hash("payment")
SPARSE, BUSY, FULL = 20, 800, 2**2048 - 1
"""So many addresses and topics of strangers are in a filter."""


def log(token: bytes = TOKEN, *, tx: bytes = CALL, topic: bytes = TRANSFER_TOPIC) -> dict[str, Any]:
    return {
        "address": hex_text(token),
        "topics": [hex_text(topic), hex_text(address_word(PAYER)), hex_text(address_word(ADDRESS))],
        "data": hex_text((1).to_bytes(32)),
        "blockHash": hex_text(HEADER.hash),
        "transactionHash": hex_text(tx),
        "logIndex": "0x0",
    }


def bloom(*tokens: bytes, strangers: int = 0) -> int:
    """The filter of a block with Transfers of `tokens`, and of others: none of those is taken for a listed token's."""
    dice = Random(strangers)
    others = [bits for _ in range(2 * strangers) if not _says_yes(bits := mask(dice.randbytes(20)))][:strangers]
    return reduce(or_, [*others, *(mask(token, TRANSFER_TOPIC) for token in tokens)], mask(TRANSFER_TOPIC))


def _says_yes(bits: int) -> bool:
    return any(bits & mask(token) & ~mask(TRANSFER_TOPIC) for token in TOKENS)


def block(of: int, *, calls: bytes | None = None) -> Block:
    """A block with this filter: one payment of coin and, where `calls` is given, a call of that contract."""
    coin = TransactionJson(hash=hex_text(PAYMENT), sender=hex_text(PAYER), value="0x1", to=hex_text(ADDRESS))
    created = TransactionJson(hash=hex_text(tx_hash("created")), sender=hex_text(PAYER), value="0x0", to=None)
    called = TransactionJson(hash=hex_text(CALL), sender=hex_text(PAYER), value="0x0", to=hex_text(calls or b""))
    return Block(HEADER, (coin, created) if calls is None else (coin, created, called), of)


def told(of: Block, *logs: dict[str, Any]) -> BlockLogs:
    read = [
        LogJson(
            address=each["address"],
            topics=each["topics"],
            payload=each["data"],
            block_hash=each["blockHash"],
            transaction_hash=each["transactionHash"],
            log_index=hex(number),
        )
        for number, each in enumerate(logs)
    ]
    return checked(of, read, tokens=TOKENS)


@pytest.mark.parametrize(
    ("of", "logs", "doubted"),
    [
        (block(bloom(TOKEN)), [log()], set()),
        (block(bloom(TOKEN)), [], {TOKEN}),
        (block(bloom(*TOKENS)), [], {TOKEN, OTHER_TOKEN}),
        (block(bloom(*TOKENS)), [log()], {OTHER_TOKEN}),
        (block(bloom(*TOKENS)), [log(), log(OTHER_TOKEN)], set()),
        (block(bloom(strangers=SPARSE)), [], set()),
        (block(bloom(TOKEN, strangers=BUSY)), [], {TOKEN}),  # no logs at all: the case of a node that lags
        (block(bloom(*TOKENS, strangers=BUSY)), [log()], set()),  # a third of all tokens are in such a filter
        (block(0), [], set()),
        (block(0, calls=TOKEN), [], {TOKEN}),
        (block(0, calls=TOKEN), [log()], set()),
        (block(0, calls=TOKEN), [log(OTHER_TOKEN)], {TOKEN}),
        (block(0, calls=PAYER), [], set()),  # not seen: what a contract in between did
        (block(FULL), [], set()),
        (block(FULL, calls=TOKEN), [], {TOKEN}),
        (block(bloom(strangers=SPARSE), calls=TOKEN), [], set()),  # the filter says no
    ],
)
def test_a_token_is_doubted_whose_logs_a_block_seems_to_lack(
    of: Block, logs: list[dict[str, Any]], doubted: set[bytes]
) -> None:
    doubt = doubt_of(told(of, *logs), TOKENS)
    assert (set() if doubt is None else doubt.tokens) == doubted


def test_the_more_a_filter_holds_the_less_its_yes_tells() -> None:
    def by_chance(strangers: int) -> float:
        doubt = doubt_of(told(block(bloom(TOKEN, strangers=strangers))), TOKENS)
        assert isinstance(doubt, Doubt)
        return doubt.by_chance

    assert by_chance(SPARSE) < 0.001 < by_chance(200) < 0.1 < by_chance(BUSY)


Receipts = dict[bytes, list[dict[str, Any]] | None]
HIDDEN: Receipts = {CALL: [log()]}
LACKING: Receipts = {CALL: None}


class Teller(Node):
    """A node with one block: what it tells of its logs, what is in its receipts, and how it tells all of them."""

    def __init__(
        self,
        logs: Sequence[dict[str, Any]] = (),
        *,
        receipts: Receipts | None = None,
        whole: str = "whole",
        status: int = 1,
    ) -> None:
        super().__init__()
        self.status = status
        self.receipts: Receipts = {CALL: [], PAYMENT: [], tx_hash("created"): []}
        self.receipts |= receipts or {}
        self.whole = whole
        self.methods |= {
            "eth_getLogs": lambda _: list(logs),
            "eth_getBlockReceipts": lambda _: self.of_block(),
            "eth_getTransactionReceipt": lambda params: self.receipt(bytes.fromhex(params[0][2:])),
        }

    def of_block(self) -> list[Any]:
        if self.whole == "refused":
            raise Error(-32601, "the method eth_getBlockReceipts does not exist")
        return [self.receipt(each) for each in self.receipts] if self.whole == "whole" else []

    def receipt(self, of: bytes) -> dict[str, Any] | None:
        logs = self.receipts[of]
        if logs is None:
            return None
        return {
            "transactionHash": hex_text(of),
            "blockNumber": hex(HEADER.number),
            "blockHash": hex_text(HEADER.hash),
            "gasUsed": "0x5208",
            "status": hex(self.status),
            "logs": logs,
        }


def look(of: BlockLogs, *nodes: Teller, asked: Sequence[list[str]], is_believed: bool) -> None:
    """Look at a block that the first of `nodes` told of; `asked` is what each of them is asked then."""
    with serving(*nodes) as chain:
        client = client_of(chain, Clock())
        pinned = client.pinned()
        if is_believed:
            check_empty(client, pinned, [of], tokens=TOKENS)
        else:
            with pytest.raises((NodeUnavailable, BlockVanished)):
                check_empty(client, pinned, [of], tokens=TOKENS)
        assert [node.asked for node in nodes] == list(asked)


IN_WHOLE, ONE = ["eth_getBlockReceipts"], ["eth_getTransactionReceipt"]
EACH = [*IN_WHOLE, "eth_getTransactionReceipt*3"]
ELSEWHERE = ["eth_getLogs"]
EMPTY, BARE = told(block(bloom(TOKEN), calls=TOKEN)), told(block(bloom(TOKEN, strangers=BUSY), calls=TOKEN))
PARTLY = told(block(bloom(*TOKENS, strangers=300), calls=TOKEN), log(OTHER_TOKEN))
UNFILTERED = told(block(0, calls=TOKEN))


@pytest.mark.parametrize(
    ("of", "node", "asked", "is_believed"),
    [
        (EMPTY, Teller(), IN_WHOLE, True),
        (EMPTY, Teller(receipts=HIDDEN), IN_WHOLE, False),
        (EMPTY, Teller(receipts={CALL: [log(topic=UPGRADED_TOPIC)]}), IN_WHOLE, True),
        (EMPTY, Teller(receipts=HIDDEN, whole="refused"), EACH, False),
        (EMPTY, Teller(receipts=HIDDEN, whole="empty"), EACH, False),  # none, of a block with three transactions
        (EMPTY, Teller(whole="empty"), EACH, True),
        (EMPTY, Teller(receipts=LACKING, whole="empty"), EACH, False),
        (BARE, Teller(receipts=HIDDEN), IN_WHOLE, False),
        (PARTLY, Teller(receipts=HIDDEN), [], True),  # not seen: receipts are not read on a filter's weak word
        (UNFILTERED, Teller(), ONE, True),
        (UNFILTERED, Teller(receipts=HIDDEN), ONE, False),
        (UNFILTERED, Teller(receipts=LACKING), ONE, False),
        (told(block(0)), Teller(receipts=HIDDEN), [], True),
    ],
)
def test_a_node_alone_must_show_receipts_that_bear_out_an_empty_answer(
    of: BlockLogs, node: Teller, asked: list[str], is_believed: bool
) -> None:
    look(of, node, asked=[asked], is_believed=is_believed)


@pytest.mark.parametrize(
    ("of", "first", "second", "asked", "is_believed"),
    [
        (EMPTY, Teller(), Teller([log()]), [[], ELSEWHERE], False),
        (
            EMPTY,
            Teller(receipts=HIDDEN),
            Teller(),
            [IN_WHOLE, ELSEWHERE],
            False,
        ),  # two that are wrong, and a filter to be sure
        (EMPTY, Teller(receipts=HIDDEN, whole="empty"), Teller(), [EACH, ELSEWHERE], False),
        (EMPTY, Teller(), Teller(), [IN_WHOLE, ELSEWHERE], True),
        (BARE, Teller(), Teller(), [[], ELSEWHERE], True),  # such filters err too often for more
        (BARE, Teller(), Teller([log()]), [[], ELSEWHERE], False),
        (PARTLY, Teller(), Teller(), [[], ELSEWHERE], True),
        (PARTLY, Teller(), Teller([log()]), [[], ELSEWHERE], False),
        (PARTLY, Teller(), Teller([log(OTHER_TOKEN)]), [[], ELSEWHERE], True),
        (UNFILTERED, Teller(receipts=HIDDEN), Teller(), [ONE, []], False),
    ],
)
def test_another_node_is_asked_first(
    of: BlockLogs, first: Teller, second: Teller, asked: list[list[str]], is_believed: bool
) -> None:
    look(of, first, second, asked=asked, is_believed=is_believed)


def test_a_node_whose_logs_are_none_that_were_asked_for_is_passed_over() -> None:
    with serving(Teller(), Teller()) as chain:
        client = client_of(chain, Clock())
        pinned = client.pinned()
        foreign = told(block(0), log())
        with pytest.raises(NodeUnavailable, match="not asked for"):
            checked_or_distrusted(pinned, foreign.block, foreign.logs, tokens=[OTHER_TOKEN], logs_coin=False)
        assert client.pinned().endpoint != pinned.endpoint


@pytest.mark.parametrize(
    ("payments", "whole", "asked"),
    [
        (MANY, "whole", ["eth_getTransactionReceipt*20"]),
        (MANY + 1, "whole", ["eth_getBlockReceipts"]),
        (MANY + 1, "refused", ["eth_getBlockReceipts", "eth_getTransactionReceipt*21"]),
    ],
)
def test_receipts_of_a_block_that_pays_many_are_asked_for_in_one(payments: int, whole: str, asked: list[str]) -> None:
    paid = [tx_hash(f"payment {number}") for number in range(payments)]
    node = Teller(receipts={each: [] for each in paid}, whole=whole)
    seen = [
        Sighting(HEADER.number, HEADER.hash, HEADER.time, each, NATIVE_LOG_INDEX, NATIVE, PAYER, ADDRESS, 1)
        for each in paid
    ]
    with serving(node) as chain:
        client = client_of(chain, Clock())
        assert bear_out(client, client.pinned(), seen) == (seen, [])
        assert node.asked == asked


TOKENS_MOVED = Sighting(HEADER.number, HEADER.hash, HEADER.time, CALL, 0, TOKEN, PAYER, ADDRESS, 1)
COIN_MOVED = Sighting(HEADER.number, HEADER.hash, HEADER.time, PAYMENT, NATIVE_LOG_INDEX, NATIVE, PAYER, ADDRESS, 1)
SAYS_FAILED, SAYS_DONE = Teller(receipts=HIDDEN, status=0), Teller(receipts=HIDDEN)
BARELY_FAILED = Teller(status=0)
LAGS, AWAY = Teller(receipts={CALL: None, PAYMENT: None}), None


@pytest.mark.parametrize(
    ("seen", "first", "rest", "outcome"),
    [
        (TOKENS_MOVED, SAYS_DONE, [], "moved"),
        (TOKENS_MOVED, SAYS_FAILED, [], "doubted"),  # a failed transaction has no logs
        (TOKENS_MOVED, BARELY_FAILED, [], "doubted"),  # it told of the log that its receipt does not show
        (TOKENS_MOVED, SAYS_FAILED, [SAYS_DONE], "doubted"),
        (TOKENS_MOVED, SAYS_FAILED, [LAGS], "doubted"),
        (TOKENS_MOVED, SAYS_FAILED, [AWAY], "doubted"),
        (TOKENS_MOVED, SAYS_FAILED, [LAGS, SAYS_FAILED], "failed"),  # a chain of strange receipts goes on all the same
        (COIN_MOVED, SAYS_DONE, [], "moved"),
        (COIN_MOVED, SAYS_FAILED, [], "failed"),
        (COIN_MOVED, SAYS_FAILED, [SAYS_FAILED], "failed"),
        (COIN_MOVED, SAYS_FAILED, [SAYS_DONE], "doubted"),
        (COIN_MOVED, SAYS_FAILED, [LAGS, SAYS_DONE], "doubted"),
        (COIN_MOVED, SAYS_FAILED, [AWAY, SAYS_DONE], "doubted"),
        (COIN_MOVED, SAYS_FAILED, [LAGS], "failed"),  # else one that is stuck or away would stop the chain
        (COIN_MOVED, SAYS_FAILED, [AWAY], "failed"),
    ],
)
def test_what_is_said_to_have_failed_is_dropped_where_another_says_so_or_coin_where_nobody_else_can_tell(
    seen: Sighting, first: Teller, rest: Sequence[Teller | None], outcome: str
) -> None:
    wanted = {"moved": ([seen], []), "failed": ([], [seen])}
    with serving(first, *(node or Teller() for node in rest)) as chain:
        urls = [url if node else "http://127.0.0.1:1" for url, node in zip(chain.rpc_urls[1:], rest, strict=True)]
        client = client_of(replace(chain, rpc_urls=(chain.rpc_urls[0], *urls)), Clock())
        pinned = client.pinned()
        if outcome == "doubted":
            with pytest.raises(NodeUnavailable, match="its receipt does not show"):
                bear_out(client, pinned, [seen])
            assert not any(rest) or client.pinned().endpoint != pinned.endpoint, "another one is asked from now on"
        else:
            assert bear_out(client, pinned, [seen]) == wanted[outcome]
