import pytest

from ctrip.domain.inflows import Coin, Hop, Search, explained_by, superseded
from ctrip.domain.transfers import INTERNAL_LOG_INDEX, NATIVE_LOG_INDEX
from tests.factories import ADDRESS, PAYER, tx_hash

OTHER = b"\xde" * 20


def _coin(name: str, block: int, amount: int, recipient: bytes = ADDRESS) -> Coin:
    """Coin that was inferred; or, where the name is a number, that is of such a transaction."""
    return Coin(name, recipient, block, amount, tx_hash(int(name)) if name.isdigit() else None, INTERNAL_LOG_INDEX)


def _native(
    block: int, amount: int, recipient: bytes = ADDRESS, *, tx: int = 0, log_index: int = NATIVE_LOG_INDEX
) -> Coin:
    return Coin(f"of {tx}", recipient, block, amount, tx_hash(tx), log_index)


@pytest.mark.parametrize(
    ("by", "left"),
    [
        ([], {}),
        ([_native(10, 100)], {"a": 0}),
        ([_native(5, 100)], {"a": 0}),
        ([_native(5, 40)], {"a": 60}),
        ([_native(5, 40), _native(10, 40)], {"a": 20}),
        ([_native(11, 30)], {"b": 20}),
        ([_native(20, 50)], {"b": 0}),
        ([_native(21, 50)], {}),
        ([_native(5, 120)], {"a": 0, "b": 30}),
        ([_native(5, 1000)], {"a": 0, "b": 0}),
        ([_native(15, 60), _native(3, 90)], {"a": 10, "b": 0}),
        ([_native(5, 100, OTHER)], {"c": 0}),
    ],
)
def test_what_was_inferred_gives_way_by_as_much_as_a_transfer_at_or_before_its_block_explains(
    by: list[Coin], left: dict[str, int]
) -> None:
    standing = [_coin("b", 20, 50), _coin("a", 10, 100), _coin("c", 10, 100, OTHER)]
    assert superseded(standing, by) == left


ONE, TWO, INFERRED = _coin("1", 10, 30), _coin("2", 10, 40), _coin("a", 10, 50)


@pytest.mark.parametrize(
    ("standing", "by", "left"),
    [
        ([ONE], [_native(10, 30, tx=1)], {"1": 0}),
        ([ONE, TWO, INFERRED], [_native(10, 40, tx=2)], {"2": 0}),
        ([ONE, INFERRED], [_native(10, 50, tx=3), _native(10, 30, tx=1)], {"1": 0, "a": 0}),
        ([ONE, INFERRED], [_native(9, 50, tx=3)], {"a": 0}),
        ([ONE], [_native(9, 30, tx=3)], {"1": 0}),  # the trace told of another transaction than it was
        ([ONE], [_native(11, 30, tx=3)], {}),
        ([ONE], [_native(10, 30, OTHER, tx=1)], {}),
        ([ONE], [_native(10, 10, tx=1), _native(10, 10, tx=1)], {"1": 10}),  # two logs of one transaction
        ([ONE, INFERRED], [_native(10, 100, tx=1)], {"1": 0, "a": 0}),
        ([ONE, INFERRED], [_native(10, 10, tx=1)], {"1": 0, "a": 70}),  # one inferred transfer stands at a block
        ([ONE, TWO], [_native(10, 10, tx=1), _native(10, 10, tx=2)], {"1": 50, "2": 0}),
    ],
)
def test_coin_of_a_trace_gives_way_to_its_own_transaction_first(
    standing: list[Coin], by: list[Coin], left: dict[str, int]
) -> None:
    assert superseded(standing, by) == left


DIRECT, LOGGED = _native(10, 30, tx=4), _native(10, 30, tx=4, log_index=5)


@pytest.mark.parametrize(
    ("standing", "by", "left"),
    [
        ([DIRECT], [LOGGED], {"of 4": 0}),
        ([LOGGED], [DIRECT], {"of 4": 0}),
        ([DIRECT, INFERRED], [LOGGED], {"of 4": 0}),
        ([DIRECT, TWO], [LOGGED, _native(10, 40, tx=2, log_index=6)], {"of 4": 0, "2": 0}),
        ([LOGGED], [_native(10, 30, tx=4, log_index=6)], {}),  # two logs are two transfers
        ([DIRECT], [_native(10, 30, tx=3, log_index=5)], {}),
        ([DIRECT], [_native(10, 30, OTHER, tx=4, log_index=5)], {}),
    ],
)
def test_a_transaction_and_its_log_tell_of_the_same_coin(
    standing: list[Coin], by: list[Coin], left: dict[str, int]
) -> None:
    assert superseded(standing, by) == left


@pytest.mark.parametrize(
    ("gone", "by", "left"),
    [
        ([_native(10, 40)], [_native(10, 40)], {}),  # the same money under another place
        ([_native(10, 40)], [_native(10, 60)], {"a": 30}),
        ([_native(10, 60)], [_native(10, 40)], {}),
        ([_native(9, 40)], [_native(10, 40)], {}),
        ([_native(11, 40)], [_native(10, 40)], {"a": 10}),  # at block 10 that was in no balance
        ([_native(10, 40, OTHER)], [_native(10, 40)], {"a": 10}),
    ],
)
def test_what_stands_instead_of_another_transfer_explains_only_what_it_brings_more(
    gone: list[Coin], by: list[Coin], left: dict[str, int]
) -> None:
    assert superseded([INFERRED], by, instead_of=gone) == left


@pytest.mark.parametrize(
    ("amounts", "inflow", "kept"),
    [((), 5, []), ((5,), 5, [5]), ((2, 2), 5, [2, 2]), ((3, 3), 5, []), ((6,), 5, [])],
)
def test_a_trace_that_tells_of_more_than_came_in_explains_nothing(
    amounts: tuple[int, ...], inflow: int, kept: list[int]
) -> None:
    hops = [Hop(tx_hash(1), place, PAYER, ADDRESS, amount) for place, amount in enumerate(amounts)]
    stranger = Hop(tx_hash(2), 0, PAYER, OTHER, 1)
    assert [hop.amount for hop in explained_by([*hops, stranger], recipient=ADDRESS, inflow=inflow)] == kept


@pytest.mark.parametrize("first", [11, 12, 50, 74])
def test_the_first_block_that_holds_it_is_found_with_few_questions(first: int) -> None:
    search, questions = Search(low=10, high=74), 0
    while not search.is_over:
        search, questions = search.told(holds_it=search.middle >= first), questions + 1
    assert (search.high, questions) == (first, 6)
