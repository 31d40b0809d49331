from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.forks import Voice
from ctrip.domain.rereading import Telling, difference, facts_of, recount
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Sighting, Transfer
from tests.factories import OTHER_TOKEN, block_hash, block_time, make_transfer, tx_hash

BENT: dict[str, dict[str, Any]] = {
    "amount": {"amount": 2},
    "recipient": {"recipient": b"\x66" * 20},
    "sender": {"sender": b"\x66" * 20},
    "token": {"token": OTHER_TOKEN},
    "log index": {"log_index": 7},
    "transaction": {"tx_hash": tx_hash("another")},
    "block": {"block_hash": block_hash(10, "fork")},
    "block time": {"block_time": block_time(10) + timedelta(seconds=1)},
}
"""What may be told otherwise of one transfer."""


def sighting(of: Transfer) -> Sighting:
    return Sighting(**{name: getattr(of, name) for name in Sighting.__dataclass_fields__})


def test_rows_and_blocks_are_compared_where_the_blocks_were_read() -> None:
    both, only_stored, elsewhere = make_transfer(1, 10), make_transfer(2, 11), make_transfer(3, 99)
    only_seen = sighting(make_transfer(4, 12))
    found = difference([both, only_stored, elsewhere], [sighting(both), only_seen], blocks={10, 11, 12})
    assert (found.missing, found.strangers) == ((only_seen,), (only_stored,))
    assert not difference([both], [sighting(both)], blocks={10})


@pytest.mark.parametrize("name", BENT)
def test_a_row_with_other_facts_is_a_stranger_and_the_true_one_is_missing(name: str) -> None:
    here = make_transfer(1, 10)
    there = sighting(replace(here, **BENT[name]))
    found = difference([here], [there], blocks={10})
    assert (found.strangers, found.missing) == ((here,), (there,))


@pytest.mark.parametrize(
    ("told_otherwise", "is_stranger"), [({}, False), ({"amount": 2}, True), ({"tx_hash": tx_hash("another")}, True)]
)
def test_coin_whose_transaction_was_read_is_no_stranger_where_its_log_is_seen(
    told_otherwise: dict[str, Any], is_stranger: bool
) -> None:
    direct = make_transfer(1, 10, token=NATIVE, log_index=NATIVE_LOG_INDEX)
    log = replace(sighting(direct), log_index=7, **told_otherwise)
    found = difference([direct], [log], blocks={10})
    assert (found.missing, found.strangers) == ((log,), (direct,) if is_stranger else ())


def test_what_a_balance_grew_by_is_not_compared_for_nodes_know_that_of_new_blocks_alone() -> None:
    fee = make_transfer(990, 10, is_payable=False)
    assert not difference([fee], [replace(sighting(fee), amount=1000)], blocks={10})
    assert difference([fee], [replace(sighting(fee), recipient=b"\x66" * 20)], blocks={10})


TRUE = make_transfer(1, 10)
FALSE = replace(TRUE, amount=2, endpoint="a")
ELSEWHERE = replace(TRUE, log_index=7, endpoint="a")
BESIDE = replace(make_transfer(5, 10), tx_hash=tx_hash("beside"), recipient=b"\x55" * 20)
BENT_MORE, BENT_LESS = replace(TRUE, amount=3), replace(TRUE, recipient=b"\x66" * 20)


def shows(*transfers: Transfer, fork: str = "", receipt: Voice | None = None) -> Telling:
    """What an endpoint tells whose block 10 holds these."""
    return Telling(
        frozenset({block_hash(10, fork)}),
        tuple(map(sighting, transfers)),
        {} if receipt is None else {FALSE.id: receipt},
    )


TOLD: dict[str, tuple[dict[str, Telling | None], bool]] = {
    "all deny it by now": ({"a": shows(TRUE), "b": shows(TRUE)}, True),
    "the only one takes it back": ({"a": shows(TRUE)}, True),
    "who told of it upholds it against one": ({"a": shows(FALSE), "b": shows(TRUE)}, False),
    "who told of it upholds it against two": ({"a": shows(FALSE), "b": shows(TRUE), "c": shows(TRUE)}, True),
    "who told of it is away, one denies it": ({"a": None, "b": shows(TRUE)}, False),
    "who told of it is away, two deny it": ({"a": None, "b": shows(TRUE), "c": shows(TRUE)}, True),
    "who told of it is away, two deny it and one shows it": (
        {"a": None, "b": shows(TRUE), "c": shows(TRUE), "d": shows(FALSE)},
        False,
    ),
    "who told of it is on a fork, two deny it": (
        {"a": shows(fork="b"), "b": shows(TRUE), "c": shows(TRUE)},
        True,
    ),
    "who told of it takes it back, the other is away": ({"a": shows(TRUE), "b": None}, False),
    "who told of it takes it back, another one has it": ({"a": shows(TRUE), "b": shows(FALSE)}, False),
    "who told of it is not listed any more": ({"b": shows(TRUE), "c": shows(TRUE)}, True),
    "two logs are left out, the receipts deny it": (
        {"a": shows(receipt=Voice.GONE), "b": shows(receipt=Voice.GONE)},
        True,
    ),
    "two logs are left out, the receipts show it": (
        {"a": shows(receipt=Voice.KEPT), "b": shows(receipt=Voice.GONE), "c": shows(receipt=Voice.KEPT)},
        False,
    ),
    "all deny it, and two tell two stories": ({"a": shows(TRUE), "b": shows(BENT_MORE)}, False),
    "all deny it, and three tell three": ({"a": shows(TRUE), "b": shows(BENT_MORE), "c": shows(BENT_LESS)}, False),
    "all deny it, and one tells another story": (
        {"a": shows(TRUE), "b": shows(TRUE), "c": shows(BENT_MORE)},
        True,
    ),
    "all deny it, and one leaves out what another shows": (
        {"a": shows(TRUE), "b": shows(receipt=Voice.GONE)},
        False,
    ),
    "all deny it, and one shows more": ({"a": shows(TRUE, BENT_MORE), "b": shows(TRUE)}, False),
    "all deny it, and of others in the block each tells something else": (
        {"a": shows(TRUE, BESIDE), "b": shows(TRUE, replace(BESIDE, amount=9))},
        True,
    ),
    "logs are left out where there are no receipts": ({"a": shows(), "b": shows(), "c": shows()}, False),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_contested_transfer_is_false_where_more_endpoints_deny_it_than_tell_of_it(name: str) -> None:
    tellings, is_false = TOLD[name]
    assert recount([FALSE], tellings).false == ((FALSE,) if is_false else ())


THERE: dict[str, tuple[Transfer, Mapping[str, Telling | None], dict[str, tuple[Transfer, ...]]]] = {
    "all show the true one": (FALSE, {"a": shows(TRUE), "b": shows(TRUE)}, {"a": (TRUE,)}),
    "the liar does not": (FALSE, {"a": shows(FALSE), "b": shows(TRUE), "c": shows(TRUE)}, {"b": (TRUE,)}),
    "at another place": (
        ELSEWHERE,
        {"a": shows(TRUE, receipt=Voice.GONE), "b": shows(TRUE, receipt=Voice.GONE)},
        {"a": (TRUE,)},
    ),
    "nothing is false": (FALSE, {"a": shows(FALSE), "b": shows(TRUE)}, {}),
    "each shows another": (FALSE, {"a": shows(TRUE), "b": shows(BENT_MORE)}, {}),
    "of another block": (
        FALSE,
        {"a": shows(TRUE), "b": shows(replace(TRUE, block_hash=block_hash(10, "b")), fork="b"), "c": shows(TRUE)},
        {"a": (TRUE,)},
    ),
}


@pytest.mark.parametrize("name", THERE)
def test_what_most_endpoints_show_in_the_block_of_a_false_transfer_is_there(name: str) -> None:
    contested, tellings, there = THERE[name]
    found = {endpoint: tuple(map(facts_of, each)) for endpoint, each in recount([contested], tellings).there.items()}
    assert found == {endpoint: tuple(map(facts_of, each)) for endpoint, each in there.items()}


def test_who_goes_on_telling_of_what_is_false_is_known() -> None:
    assert recount([FALSE], {"a": shows(FALSE), "b": shows(TRUE), "c": shows(TRUE)}).liars == ("a",)
    assert recount([FALSE], {"a": None, "b": shows(TRUE), "c": shows(TRUE)}).liars == ()
    assert recount([FALSE], {"a": shows(FALSE), "b": shows(TRUE)}).liars == (), "nobody knows who is right"


def test_who_denies_a_transfer_is_heard_while_nobody_knows_what_is_there_instead() -> None:
    found = recount([FALSE], {"a": shows(TRUE), "b": shows(BENT_MORE)})
    assert (found.denied, found.false) == ((FALSE,), ())


def test_amounts_that_endpoints_may_honestly_differ_in_part_nobody() -> None:
    contested = replace(FALSE, log_index=7)
    tellings = {"a": shows(TRUE), "b": shows(BENT_MORE)}
    assert recount([contested], tellings, unsure=[TRUE.token]).false == ()
    there = {"a": shows(TRUE, receipt=Voice.GONE), "b": shows(BENT_MORE, receipt=Voice.GONE)}
    assert recount([contested], there, unsure=[TRUE.token]).false == (contested,)
