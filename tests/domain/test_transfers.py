from typing import Any

import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.transfers import Reason, Source, TransferStatus, in_chain_order, judge, transfer_object
from tests.factories import asked_of, block_hash, make_payment, make_transfer, tx_hash


def test_transfers_stand_in_the_order_of_the_chain_without_the_orphaned() -> None:
    later = make_transfer(1, 11, log_index=0)
    third = make_transfer(1, 10, log_index=7)
    second = make_transfer(1, 10, log_index=2)
    coin = make_transfer(1, 10, token=NATIVE)
    gone = make_transfer(1, 9, status=TransferStatus.ORPHANED)
    assert in_chain_order([later, third, gone, coin, second]) == [coin, second, third, later]


def test_the_transfer_that_reaches_the_target_counts_whole() -> None:
    amounts = [(v.transfer.amount, v.reason) for v in _judge([400, 700, 1], target=1000)]
    assert amounts == [(400, None), (700, None), (1, Reason.AFTER_COMPLETION)]


def test_what_does_not_count_completes_nothing() -> None:
    foreign = make_transfer(5000, 1, is_payable=False)
    verdicts = judge([foreign, make_transfer(1000, 2)], asked=asked_of(make_payment()), choice=None, target=1000)
    assert [verdict.reason for verdict in verdicts] == [Reason.NOT_PAYABLE, None]


def test_a_transfer_is_shown_as_the_contract_says() -> None:
    transfer = make_transfer(12_500_000, 120, log_index=4, name="t")
    assert transfer_object(transfer, read_block=121) == {
        "id": "trf_t",
        "object": "transfer",
        "payment_id": transfer.payment_id,
        "chain": "anvil",
        "chain_id": 31337,
        "token": "USDC",
        "token_address": "0x" + "70" * 20,
        "amount": "12.5",
        "amount_atomic": "12500000",
        "from": "0xaAaAaAaaAaAaAaaAaAAAAAAAAaaaAaAaAaaAaaAa",
        "to": "0xDDdDddDdDdddDDddDDddDDDDdDdDDdDDdDDDDDDd",
        "tx_hash": "0x" + tx_hash("t").hex(),
        "log_index": 4,
        "block_number": 120,
        "block_hash": "0x" + block_hash(120).hex(),
        "block_time": "2026-11-22T12:02:00Z",
        "source": "erc20",
        "counts": True,
        "reason": None,
        "status": "seen",
        "confirmations": 2,
    }


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"token": NATIVE}, {"token": None, "token_address": None, "log_index": -1, "source": "native"}),
        ({"counts": False, "reason": Reason.ASSET}, {"counts": False, "reason": "asset"}),
        ({"status": TransferStatus.ORPHANED}, {"counts": False, "status": "orphaned", "confirmations": 0}),
        ({"source": Source.INTERNAL}, {"source": "internal"}),
    ],
)
def test_what_is_special_about_a_transfer_is_shown(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    full = transfer_object(make_transfer(1000, 120, **changes), read_block=121)
    assert {name: full[name] for name in shown} == shown


def test_a_transfer_above_a_lagging_head_has_no_negative_confirmations() -> None:
    assert transfer_object(make_transfer(1, 120), read_block=100)["confirmations"] == 0


def _judge(amounts: list[int], *, target: int) -> Any:
    transfers = [make_transfer(amount, block) for block, amount in enumerate(amounts)]
    return judge(transfers, asked=asked_of(make_payment()), choice=None, target=target)
