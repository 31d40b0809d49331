import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from tests.factories import OTHER_TOKEN, TOKEN, make_chain


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (None, NATIVE),
        ("ETH", NATIVE),
        ("USDC", TOKEN),
        ("usdc", TOKEN),
        ("0x" + "70" * 20, TOKEN),
        ("0x" + "71" * 20, OTHER_TOKEN),
        ("WBTC", None),
        ("0x" + "00" * 20, None),  # the coin has no address to be asked for by
        ("0x" + "72" * 20, None),
        ("", None),
    ],
)
def test_an_asset_is_found_by_symbol_or_contract(name: str | None, address: bytes | None) -> None:
    found = make_chain().token(name)
    assert (found and found.address) == address


@pytest.mark.parametrize(
    ("token", "is_payable"),
    [
        (Token("A", TOKEN, 6), True),
        (Token("A", TOKEN, 6, enabled=False), False),
        (Token("A", TOKEN, 6, fee_on_transfer=True), False),
        (Token("A", TOKEN, 6, rebasing=True), False),
    ],
)
def test_only_what_arrives_as_it_was_sent_can_be_asked_for(token: Token, is_payable: bool) -> None:
    assert token.is_payable is is_payable


@pytest.mark.parametrize(
    ("read_block", "required", "final_block"), [(10, None, 8), (10, 1, 10), (10, 11, 0), (5, 10, -4)]
)
def test_the_block_at_the_head_has_one_confirmation(read_block: int, required: int | None, final_block: int) -> None:
    assert make_chain(confirmations=3).final_block(read_block, required) == final_block
