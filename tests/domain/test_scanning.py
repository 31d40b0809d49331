import pytest

from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.scanning import (
    Cursor,
    Header,
    Tagged,
    common_ancestor,
    is_linked,
    reached,
    tagged_after,
    tags_to_ask,
)
from tests.factories import CHAIN_ID, block_hash, block_time, header, make_chain


def test_headers_are_linked_where_each_names_the_hash_before_it() -> None:
    chain = [header(n) for n in range(5, 9)]
    assert is_linked(chain, parent_hash=block_hash(4))
    assert is_linked([], parent_hash=block_hash(4))
    assert not is_linked(chain, parent_hash=block_hash(4, "other"))
    assert not is_linked([*chain[:2], *chain[3:]], parent_hash=block_hash(4)), "one is missing"
    assert not is_linked([*chain[:2], header(7, "other"), chain[3]], parent_hash=block_hash(4)), "one is of a fork"
    assert not is_linked(list(reversed(chain)), parent_hash=block_hash(4))


@pytest.mark.parametrize(
    ("canonical", "ancestor"),
    [
        ({5: "", 6: "", 7: "", 8: ""}, 8),  # nothing changed
        ({5: "", 6: "", 7: "", 8: "new"}, 7),
        ({5: "", 6: "", 7: "new", 8: "new"}, 6),
        ({5: "", 6: "new", 7: "new", 8: "new", 9: "new"}, 5),
        ({5: "", 6: ""}, 6),  # the node's chain is shorter now
        ({5: "new", 6: "new", 7: "new", 8: "new"}, None),  # deeper than what is stored
        ({}, None),
    ],
)
def test_the_ancestor_is_the_newest_stored_block_that_is_still_there(
    canonical: dict[int, str], ancestor: int | None
) -> None:
    stored = [header(n) for n in range(5, 9)]
    hashes = {number: block_hash(number, fork) for number, fork in canonical.items()}
    found = common_ancestor(stored, hashes)
    assert (found and found.number) == ancestor
    assert common_ancestor(list(reversed(stored)), hashes) == found


def _cursor(safe: int | None = None, finalized: int | None = None, *, read_block: int = 100) -> Cursor:
    return Cursor(
        CHAIN_ID,
        start_block=0,
        read_block=read_block,
        read_hash=block_hash(read_block),
        head_block=read_block,
        safe=None if safe is None else Tagged(safe, block_time(safe)),
        finalized=None if finalized is None else Tagged(finalized, block_time(finalized)),
    )


@pytest.mark.parametrize(
    ("rule", "final_block"),
    [
        (FinalityRule(Finality.CONFIRMATIONS, 1), 100),
        (FinalityRule(Finality.CONFIRMATIONS, 3), 98),
        (FinalityRule(Finality.CONFIRMATIONS, 102), -1),  # the block at the head has one
        (FinalityRule(Finality.SAFE, 3), 95),
        (FinalityRule(Finality.SAFE, 10), 91),  # deep, not only safe
        (FinalityRule(Finality.FINALIZED, 3), -1),  # the node was never asked
    ],
)
def test_a_block_is_final_when_it_is_deep_and_the_chain_says_so(rule: FinalityRule, final_block: int) -> None:
    assert _cursor(safe=95).final_block(rule) == final_block


@pytest.mark.parametrize(
    ("stored", "told", "base", "to", "then"),
    [
        (None, None, 10, 20, None),
        (None, 15, 10, 20, 15),
        (None, 25, 10, 20, 20),  # never beyond what was read
        (5, None, 10, 20, 5),  # the node does not say today
        (5, 15, 10, 20, 15),
        (8, 7, 10, 20, 8),  # another node lags
        (12, 7, 10, 9, 10),  # a reorg took the block that was called so
        (12, 15, 10, 14, 14),
    ],
)
def test_what_is_called_final_goes_forward_and_back_only_by_a_reorg(
    stored: int | None, told: int | None, base: int, to: int, then: int | None
) -> None:
    before = None if stored is None else Tagged(stored, block_time(stored))
    after = tagged_after(before, None if told is None else header(told), base=header(base), to=header(to))
    assert after == (None if then is None else Tagged(then, block_time(then)))


def test_a_node_is_asked_for_the_words_of_the_rules_and_for_those_asked_for_before() -> None:
    plain, strict = make_chain(), make_chain(finality=Finality.SAFE)
    assert tags_to_ask(plain, _cursor()) == {}
    assert tags_to_ask(strict, _cursor()) == {Finality.SAFE: None}
    assert tags_to_ask(plain, _cursor(finalized=90)) == {Finality.FINALIZED: Tagged(90, block_time(90))}, (
        "older payments wait for it"
    )


@pytest.mark.parametrize(
    ("told", "then"),
    [
        (header(12), 12),
        (header(12, "fork"), None),  # the chain that is called final is not the one that was read
        (header(20), 20),
        (header(20, "fork"), None),
        (header(25), 20),  # what was read is deeper still
        (header(9), 9),  # deeper than the window
        (header(9, "fork"), 9),  # nothing to compare it with
        (header(15), None),  # this one alone is not stored
    ],
)
def test_a_word_reaches_no_block_of_ours_where_it_is_about_another_chain(told: Header, then: int | None) -> None:
    ours = {number: block_hash(number) for number in range(10, 21) if number != 15}
    block = reached(told, ours, to=header(20))
    assert (block and block.number) == then
