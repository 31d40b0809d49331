from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ctrip import metrics
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.verifying import Verification, verify
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.transfers import Transfer
from tests.blockchain.nodes import Clock, Error, ForkedNode, Http, Node, Request, client_of, serving
from tests.factories import PAYER, block_hash, header, make_transfer

TOKENS = make_transfer(1000, 90, log_index=7)
COIN = make_transfer(5, 91, token=NATIVE)
BOTH = (TOKENS, COIN)
MANY = tuple(
    replace(make_transfer(number, 90, log_index=7), id=f"trf_{number}", tx_hash=number.to_bytes(32))
    for number in range(1, 251)
)
OURS = [header(number) for number in range(80, 101)]

Change = Callable[[dict[str, Any]], None]


class Witness(Node):
    """A node that knows the two transfers, as `change` would have them."""

    def __init__(self, change: Change = lambda _: None, *, head: int = 100) -> None:
        super().__init__(head)
        self.change = change
        self.methods |= {
            "eth_getTransactionReceipt": lambda params: self._told(params[0], _receipt),
            "eth_getTransactionByHash": lambda params: self._told(params[0], _transaction),
        }

    def _told(self, asked: str, of: Callable[[Transfer], dict[str, Any]]) -> dict[str, Any] | None:
        known = {hex_text(each.tx_hash or b""): each for each in (*BOTH, *MANY) if each.block_number <= self.head}
        if asked not in known:
            return None
        told = of(known[asked])
        self.change(told)
        return None if "is_unknown" in told else told


def _receipt(transfer: Transfer) -> dict[str, Any]:
    log = {
        "address": hex_text(transfer.token),
        "topics": [hex_text(each) for each in (TRANSFER_TOPIC, address_word(PAYER), address_word(transfer.recipient))],
        "data": hex_text(transfer.amount.to_bytes(32)),
        "blockHash": hex_text(transfer.block_hash),
        "transactionHash": hex_text(transfer.tx_hash or b""),
        "logIndex": hex(transfer.log_index),
    }
    return {
        "transactionHash": hex_text(transfer.tx_hash or b""),
        "blockNumber": hex(transfer.block_number),
        "blockHash": hex_text(transfer.block_hash),
        "gasUsed": "0x5208",
        "status": "0x1",
        "logs": [] if transfer.token == NATIVE else [log],
    }


def _transaction(transfer: Transfer) -> dict[str, Any]:
    parties = {"from": hex_text(PAYER), "to": hex_text(transfer.recipient)}
    return {"hash": hex_text(transfer.tx_hash or b""), "value": hex(transfer.amount), **parties}


def _put(**values: Any) -> Change:
    """Change what a receipt, its first log, or a transaction says under names that it has."""

    def change(told: dict[str, Any]) -> None:
        for part in (told, *told.get("logs", [])[:1]):
            part.update({name: value for name, value in values.items() if name in part})

    return change


def _forget(told: dict[str, Any]) -> None:
    told["is_unknown"] = True


def _hang_up(_: Request) -> None:
    raise Http(0, None)


def _refuse(_: list[Any]) -> None:
    raise Error(-32000, "not now")


def _hear(*nodes: Node, transfers: tuple[Transfer, ...] = BOTH, by: int | None = 0) -> Verification:
    """What is said of transfers of which the node numbered `by` told, in the order of preference."""
    with serving(*nodes) as chain:
        told_by = "gone.example" if by is None else nodes[by].label
        told = [replace(transfer, endpoint=told_by) for transfer in transfers]
        return verify(client_of(chain, Clock()), told, ours=OURS, told_by=told_by)


def _borne_out(*nodes: Node, transfers: tuple[Transfer, ...] = BOTH, by: int | None = 0) -> set[str]:
    return set(_hear(*nodes, transfers=transfers, by=by).borne_out)


def _disputes() -> float:
    return metrics.CHAIN_DISAGREEMENTS.labels(chain="anvil", kind="receipt")._value.get()


def test_many_are_asked_for_in_several_requests_and_one_that_fails_keeps_no_other_back() -> None:
    teller, other = Witness(), Witness()
    assert _borne_out(teller, other, transfers=MANY) == {each.id for each in MANY}
    assert len(other.requests) == 3 + 1, "and which chain it is on"
    weary = Witness()
    weary.before = lambda request: _hang_up(request) if len(weary.requests) == 3 else None
    assert _borne_out(Witness(), weary, transfers=MANY) == {each.id for each in (*MANY[:90], *MANY[180:])}


def test_another_endpoint_than_the_one_that_told_is_asked_for_all_in_one_request() -> None:
    teller, other = Witness(), Witness()
    assert _borne_out(teller, other) == {TOKENS.id, COIN.id}
    assert (teller.asked, other.asked) == ([], ["eth_getTransactionReceipt*7"]), "with two blocks each"


@pytest.mark.parametrize("by", [0, None], ids=["it told itself", "who told is not listed any more"])
def test_a_single_endpoint_is_asked_once_more(by: int | None) -> None:
    assert _borne_out(Witness(), by=by) == {TOKENS.id, COIN.id}
    assert _borne_out(Witness(_put(status="0x0")), by=by) == set()


FALSE: dict[str, tuple[Change, set[str]]] = {
    "failed": (_put(status="0x0"), set()),
    "in another block": (_put(blockHash=hex_text(block_hash(90, "b"))), set()),
    "it has the blocks, and not the transactions": (_forget, set()),
    "another token": (_put(address="0x" + "66" * 20), {COIN.id}),
    "another log": (_put(logIndex="0x8"), {COIN.id}),
    "another amount of tokens": (_put(data=hex_text((999).to_bytes(32))), {COIN.id}),
    "another event": (_put(topics=["0x" + "00" * 32] * 3), {COIN.id}),
    "no log": (_put(logs=[]), {COIN.id}),
    "another amount of coin": (_put(value="0x4"), {TOKENS.id}),
    "coin from somebody else": (_put(**{"from": "0x" + "66" * 20}), {TOKENS.id}),
    "coin to somebody else": (_put(to="0x" + "66" * 20), {TOKENS.id}),
    "coin to a new contract": (_put(to=None), {TOKENS.id}),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_is_told_otherwise_is_not_borne_out_and_that_is_said(name: str) -> None:
    change, borne_out = FALSE[name]
    before = _disputes()
    heard = _hear(Witness(), Witness(change))
    assert (set(heard.borne_out), set(heard.contradicted)) == (borne_out, {TOKENS.id, COIN.id} - borne_out)
    assert _disputes() - before == 2 - len(borne_out)


def test_a_third_endpoint_decides_and_the_liar_is_distrusted() -> None:
    teller, liar, third = Witness(), Witness(_put(status="0x0")), Witness()
    before = _disputes()
    assert _borne_out(teller, liar, third) == {TOKENS.id, COIN.id}
    assert (teller.asked, len(liar.asked), len(third.asked)) == ([], 1, 1)
    assert _disputes() - before == 2


UNHEARD: dict[str, Callable[[], Node]] = {
    "behind": lambda: Witness(head=89),
    "on a fork without them": lambda: _with(_forget, methods={"eth_getBlockByNumber": _of_a_fork}),
    "keeping no receipts so old": lambda: _with(_forget, methods={"eth_getBlockByNumber": _with_transactions}),
    "telling them whole": lambda: _with(_forget, methods={"eth_getBlockByNumber": _whole}),
    "not telling what blocks hold": lambda: _with(_forget, methods={"eth_getBlockByNumber": _without_transactions}),
    "away": lambda: _with(before=_hang_up),
    "refusing": lambda: _with(methods={"eth_getTransactionReceipt": _refuse}),
    "writing nonsense": lambda: _with(methods={"eth_getTransactionReceipt": lambda _: {"status": 1}}),
}


def _of_a_fork(params: list[Any]) -> dict[str, Any] | None:
    block = Node().block(params[0])
    return None if block is None else block | {"hash": hex_text(block_hash(int(block["number"], 16), "b"))}


def _with_transactions(params: list[Any]) -> dict[str, Any] | None:
    block = Node().block(params[0])
    held = [hex_text(each.tx_hash or b"") for each in BOTH if params[0] == hex(each.block_number)]
    return None if block is None else block | {"transactions": held}


def _whole(params: list[Any]) -> dict[str, Any] | None:
    block = Node().block(params[0])
    held = [_transaction(each) for each in BOTH if params[0] == hex(each.block_number)]
    return None if block is None else block | {"transactions": held}


def _without_transactions(params: list[Any]) -> dict[str, Any] | None:
    block = Node().block(params[0])
    return None if block is None else {name: told for name, told in block.items() if name != "transactions"}


def _with(change: Change = lambda _: None, **changes: Any) -> Node:
    node = Witness(change)
    node.before = changes.get("before", node.before)
    node.methods |= changes.get("methods", {})
    return node


@pytest.mark.parametrize("name", UNHEARD)
def test_an_endpoint_that_cannot_tell_is_no_word_against_a_transfer(name: str) -> None:
    before = _disputes()
    assert _hear(Witness(), UNHEARD[name]()) == Verification()
    assert _disputes() == before
    assert _borne_out(Witness(), UNHEARD[name](), Witness()) == {TOKENS.id, COIN.id}, "the next one is asked"


@pytest.mark.parametrize("answer", [_refuse, lambda _: {"status": 1}, lambda _: None])
def test_what_an_endpoint_does_not_tell_of_one_transfer_keeps_no_other_from_being_borne_out(answer: Any) -> None:
    witness = Witness()
    told = witness.methods["eth_getTransactionReceipt"]
    witness.methods["eth_getTransactionReceipt"] = lambda params: (
        answer(params) if params[0] == hex_text(TOKENS.tx_hash or b"") else told(params)
    )
    assert _borne_out(Witness(), witness) == {COIN.id}


def test_the_lease_is_kept_after_each_request_however_few_calls_one_may_hold() -> None:
    def one_by_one(request: Request) -> None:
        if len(request) > 1:
            raise Http(200, {"id": None, "error": {"code": -32600, "message": "batch of more than 1 is too large"}})

    kept, witness = list[None](), Witness()
    witness.before = one_by_one
    with serving(Witness(), witness) as chain:
        told = [replace(transfer, endpoint="gone.example") for transfer in BOTH * 5]
        client = client_of(chain, Clock()).keeping(lambda: kept.append(None))
        other = client.pinned(avoiding=[client.endpoints[0]])
        verify(other, told, ours=OURS)
    assert len(kept) >= 15


def test_what_a_token_that_takes_a_fee_brought_is_not_what_its_log_says() -> None:
    fee = replace(TOKENS, amount=990, is_payable=False)
    assert _borne_out(Witness(), Witness(), transfers=(fee,)) == {fee.id}


def test_an_unknown_transaction_of_a_later_block_waits_while_the_known_one_is_borne_out() -> None:
    early = replace(TOKENS, required=1)
    assert _borne_out(Witness(), Witness(head=90), transfers=(early, COIN)) == {TOKENS.id}


@pytest.mark.parametrize("seconds", [-7200, -1, 1, 7200])
def test_a_transfer_whose_block_has_another_time_for_the_witness_is_contradicted(seconds: int) -> None:
    def late(params: list[Any]) -> Any:
        block = Node().block(params[0])
        return None if block is None else block | {"timestamp": hex(int(block["timestamp"], 16) + seconds)}

    heard = _hear(Witness(), _with(methods={"eth_getBlockByNumber": late}))
    assert (heard.borne_out, set(heard.contradicted)) == ((), {TOKENS.id, COIN.id})
    assert _borne_out(Witness(), _with(methods={"eth_getBlockByNumber": late}), Witness()) == {TOKENS.id, COIN.id}


def _forked(shared: int) -> Node:
    return _with(methods={"eth_getBlockByNumber": lambda params: ForkedNode(shared=shared).block(params[0])})


DEEP: dict[str, tuple[Callable[[], Node], set[str]]] = {
    "it has not come so far for either": (lambda: Witness(head=91), set()),
    "it has come so far for one": (lambda: Witness(head=92), {TOKENS.id}),
    "it has come so far": (lambda: Witness(head=93), {TOKENS.id, COIN.id}),
    "it has another block there": (lambda: _forked(91), set()),
    "it has another block there for one": (lambda: _forked(92), {TOKENS.id}),
    "it has another block later": (lambda: _forked(93), {TOKENS.id, COIN.id}),
    "it tells no blocks": (lambda: _with(methods={"eth_getBlockByNumber": _refuse}), set()),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_transfer_is_as_deep_as_two_endpoints_say_and_who_says_less_denies_nothing(name: str) -> None:
    make, borne_out = DEEP[name]
    before = _disputes()
    heard = _hear(Witness(), make())
    assert (set(heard.borne_out), heard.contradicted, _disputes()) == (borne_out, (), before)
    assert _borne_out(Witness(), make(), Witness()) == {TOKENS.id, COIN.id}, "a third one bears it out"


@pytest.mark.parametrize(("head", "borne_out"), [(91, set()), (92, {TOKENS.id}), (93, {TOKENS.id, COIN.id})])
def test_who_bears_out_the_receipt_does_not_bear_out_the_blocks_that_it_told_itself(
    head: int, borne_out: set[str]
) -> None:
    reader, other = Witness(), Witness(head=head)
    with serving(reader, other) as chain:
        told = [replace(transfer, endpoint=other.label) for transfer in BOTH]
        heard = verify(client_of(chain, Clock()), told, ours=OURS, told_by=reader.label)
    assert (set(heard.borne_out), heard.contradicted) == (borne_out, ())
    assert (reader.asked, other.asked) == (["eth_getTransactionReceipt*7"], ["eth_getBlockByNumber*2"])


@pytest.mark.parametrize(("head", "borne_out"), [(95, {TOKENS.id, COIN.id}), (94, set())])
def test_what_lies_deeper_than_the_blocks_that_are_kept_is_deep_by_the_first_of_them(
    head: int, borne_out: set[str]
) -> None:
    with serving(Witness(), Witness(head=head)) as chain:
        client = client_of(chain, Clock())
        told = [replace(transfer, endpoint=client.endpoints[0]) for transfer in BOTH]
        kept, by = OURS[15:], client.endpoints[0]
        assert set(verify(client, told, ours=kept, told_by=by).borne_out) == borne_out


def test_a_transfer_that_is_not_deep_by_the_blocks_that_were_read_is_not_asked_for() -> None:
    teller, other = Witness(), Witness()
    with serving(teller, other) as chain:
        told = [replace(transfer, endpoint=teller.label) for transfer in BOTH]
        heard = verify(client_of(chain, Clock()), told, ours=OURS[:13], told_by=teller.label)
    assert (heard, other.asked) == (Verification((TOKENS.id,)), ["eth_getTransactionReceipt*3"])
