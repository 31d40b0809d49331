import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.addresses import checksum_address, hex_text, parse_address
from ctrip.errors import InvalidValue

# The test cases of https://eips.ethereum.org/EIPS/eip-55
VECTORS = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("text", VECTORS)
def test_the_vectors_of_eip_55_hold(text: str) -> None:
    assert checksum_address(bytes.fromhex(text[2:])) == text
    assert parse_address(text).hex() == text[2:].lower()


@given(st.binary(min_size=20, max_size=20))
def test_an_address_is_read_back_as_it_was_written(address: bytes) -> None:
    text = checksum_address(address)
    assert parse_address(text) == parse_address(text.lower()) == parse_address("0x" + text[2:].upper()) == address


@given(st.sampled_from(VECTORS[4:]), st.integers(2, 41))
def test_one_letter_in_the_wrong_case_is_a_wrong_checksum(text: str, position: int) -> None:
    changed = text[:position] + text[position].swapcase() + text[position + 1 :]
    if changed == text:
        return
    with pytest.raises(InvalidValue, match="EIP-55"):
        parse_address(changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed0",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA d",
        "0x" + "\uff11" * 40,
        "not-an-address",
        "0x" + "1" * 10_000,
    ],
)
def test_what_is_not_0x_and_40_hex_digits_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        parse_address(text, param="token")
    assert refusal.value.param == "token"
    assert len(refusal.value.detail) < 200


def test_bytes_are_written_in_lower_case() -> None:
    assert hex_text(bytes.fromhex("00AbFf")) == "0x00abff"
