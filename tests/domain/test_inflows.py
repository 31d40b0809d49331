import pytest

from ctrip.domain.inflows import Explanation, Hop, Inferred, Search, explained_by, superseded
from tests.factories import ADDRESS, PAYER, tx_hash

OTHER = b"\xde" * 20


def _inferred(name: str, block: int, amount: int, recipient: bytes = ADDRESS) -> Inferred:
    return Inferred(name, recipient, block, amount)


def _explanation(block: int, amount: int, recipient: bytes = ADDRESS) -> Explanation:
    return Explanation(recipient, block, amount)


@pytest.mark.parametrize(
    ("by", "left"),
    [
        ([], {}),
        ([_explanation(10, 100)], {"a": 0}),
        ([_explanation(5, 100)], {"a": 0}),
        ([_explanation(5, 40)], {"a": 60}),
        ([_explanation(5, 40), _explanation(10, 40)], {"a": 20}),
        ([_explanation(11, 30)], {"b": 20}),
        ([_explanation(20, 50)], {"b": 0}),
        ([_explanation(21, 50)], {}),
        ([_explanation(5, 120)], {"a": 0, "b": 30}),
        ([_explanation(5, 1000)], {"a": 0, "b": 0}),
        ([_explanation(15, 60), _explanation(3, 90)], {"a": 10, "b": 0}),
        ([_explanation(5, 100, OTHER)], {"c": 0}),
    ],
)
def test_what_was_inferred_gives_way_by_as_much_as_a_transfer_at_or_before_its_block_explains(
    by: list[Explanation], left: dict[str, int]
) -> None:
    standing = [_inferred("b", 20, 50), _inferred("a", 10, 100), _inferred("c", 10, 100, OTHER)]
    assert superseded(standing, by) == left


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
