"""The signer: which keys it takes, which addresses they give, and what it refuses to sign."""

from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from ctrip.blockchain.addresses import DepositWallet
from ctrip.blockchain.mnemonic import account_xpub
from ctrip.blockchain.signer import MAX_GAS, Signer
from ctrip.domain.addresses import NATIVE, checksum_address
from ctrip.domain.gas import Price
from ctrip.domain.sweeps import Order
from ctrip.errors import MisconfiguredError, SigningRefused
from tests.factories import CHAIN_ID, TOKEN, TREASURY, make_chain

MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_MNEMONIC = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
GAS_KEY = "0x" + "22" * 32
WALLET = DepositWallet.from_xpub(account_xpub(MNEMONIC))
GWEI = 10**9


def make_signer(mnemonic: str = MNEMONIC, gas_key: str = GAS_KEY, *, wallet: DepositWallet = WALLET) -> Signer:
    return Signer(mnemonic, gas_key, wallet=wallet, chains=[make_chain()])


@pytest.fixture(scope="module")
def signer() -> Signer:
    return make_signer()


def coin_sweep(**changes: Any) -> Order:
    order = Order(
        chain_id=CHAIN_ID,
        nonce=7,
        token=NATIVE,
        recipient=TREASURY,
        amount=10**18,
        gas_limit=21_000,
        price=Price(30 * GWEI, 30 * GWEI),
    )
    return replace(order, **changes)


def sender_of(raw: bytes) -> bytes:
    return bytes.fromhex(Account.recover_transaction(raw)[2:])


@pytest.mark.parametrize("index", [0, 1, 77, 2**31 - 1])
def test_the_keys_are_those_of_the_addresses_that_the_api_shows(signer: Signer, index: int) -> None:
    Account.enable_unaudited_hdwallet_features()
    reference = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    assert checksum_address(signer.address(index)) == reference.address
    assert signer.address(index) == WALLET.address(index)


def test_the_gas_wallet_is_the_address_of_its_key(signer: Signer) -> None:
    assert checksum_address(signer.gas_address) == Account.from_key(GAS_KEY).address


def test_two_different_seeds_give_different_addresses() -> None:
    other = make_signer(OTHER_MNEMONIC, wallet=DepositWallet.from_xpub(account_xpub(OTHER_MNEMONIC)))
    ours = make_signer()
    assert {ours.address(index) for index in range(20)}.isdisjoint(other.address(index) for index in range(20))


def test_a_seed_may_be_written_with_any_white_space() -> None:
    assert make_signer(f"  {MNEMONIC.replace(' ', '  ')}\n").address(3) == WALLET.address(3)


@pytest.mark.parametrize(
    ("mnemonic", "gas_key", "named"),
    [
        (OTHER_MNEMONIC, GAS_KEY, "WALLET_MNEMONIC"),  # of another wallet than the xpub
        (MNEMONIC.replace("legal", "legall"), GAS_KEY, "WALLET_MNEMONIC"),
        (MNEMONIC.rsplit(" ", 1)[0] + " zoo", GAS_KEY, "WALLET_MNEMONIC"),  # a wrong checksum
        ("", GAS_KEY, "WALLET_MNEMONIC"),
        (MNEMONIC, "", "GAS_KEY"),
        (MNEMONIC, "0x" + "00" * 32, "GAS_KEY"),
        (MNEMONIC, "0x" + "ff" * 32, "GAS_KEY"),
        (MNEMONIC, "0x" + "22" * 31, "GAS_KEY"),
        (MNEMONIC, "0x" + "2g" * 32, "GAS_KEY"),
        (MNEMONIC, "22 " * 21 + "2", "GAS_KEY"),
    ],
)
def test_wrong_keys_refuse_to_start_and_are_not_shown(mnemonic: str, gas_key: str, named: str) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        make_signer(mnemonic, gas_key)
    told = str(caught.value) + repr(caught.value)
    assert told.startswith(named)
    words = [word for word in mnemonic.split() if len(word) > 4] + ([gas_key] if len(gas_key) > 10 else [])
    assert not [word for word in words if word in told]
    assert caught.value.__cause__ is None


def test_a_signer_shows_nothing_of_its_keys(signer: Signer) -> None:
    assert repr(signer) == str(signer) == f"{signer}" == "Signer()"


@pytest.mark.parametrize(
    ("price", "fees"),
    [
        (Price(30 * GWEI, 2 * GWEI), {"type": 2, "maxFeePerGas": 30 * GWEI, "maxPriorityFeePerGas": 2 * GWEI}),
        (Price(30 * GWEI, 30 * GWEI), {"type": 2, "maxFeePerGas": 30 * GWEI, "maxPriorityFeePerGas": 30 * GWEI}),
    ],
)
def test_a_sweep_of_coin_pays_the_treasury(signer: Signer, price: Price, fees: dict[str, int]) -> None:
    signed = signer.sign_sweep(coin_sweep(price=price), index=5, address=signer.address(5))
    assert signed.tx_hash == keccak(signed.raw)
    assert sender_of(signed.raw) == WALLET.address(5)
    fields = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
    assert {name: fields[name] for name in fees} == fees
    assert (fields["to"], fields["value"], fields["data"]) == (TREASURY, 10**18, b"")
    assert (fields["nonce"], fields["gas"], fields["chainId"]) == (7, 21_000, CHAIN_ID)


def test_a_chain_without_eip_1559_gets_a_legacy_transaction_that_names_its_chain(signer: Signer) -> None:
    signed = signer.sign_sweep(coin_sweep(price=Price(5 * GWEI, None)), index=5, address=signer.address(5))
    assert signed.raw[0] >= 0xC0, "a plain RLP list"
    assert sender_of(signed.raw) == WALLET.address(5)
    other = Signer(MNEMONIC, GAS_KEY, wallet=WALLET, chains=[make_chain(chain_id=1)])
    elsewhere = other.sign_sweep(
        coin_sweep(chain_id=1, price=Price(5 * GWEI, None)), index=5, address=signer.address(5)
    )
    assert elsewhere.raw != signed.raw, "replayable on another chain otherwise (EIP-155)"


def test_a_sweep_of_tokens_calls_the_token_and_names_the_treasury(signer: Signer) -> None:
    order = coin_sweep(token=TOKEN, amount=1234, gas_limit=80_000)
    signed = signer.sign_sweep(order, index=9, address=signer.address(9))
    fields = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
    assert (fields["to"], fields["value"]) == (TOKEN, 0)
    assert fields["data"] == bytes.fromhex("a9059cbb") + TREASURY.rjust(32, b"\0") + (1234).to_bytes(32)


def test_a_top_up_pays_a_deposit_address_from_the_gas_wallet(signer: Signer) -> None:
    order = coin_sweep(recipient=signer.address(3), amount=10**15)
    signed = signer.sign_topup(order, index=3)
    assert sender_of(signed.raw) == signer.gas_address
    assert TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()["to"] == signer.address(3)


@pytest.mark.parametrize(
    ("situation", "changes"),
    [
        ("another recipient", {"recipient": b"\x66" * 20}),
        ("a deposit address as recipient", {"recipient": WALLET.address(5)}),
        ("an asset that is not listed", {"token": b"\x66" * 20}),
        ("a chain that is not configured", {"chain_id": 1}),
        ("a price above the ceiling", {"price": Price(201 * GWEI, GWEI)}),
        ("a legacy price above the ceiling", {"price": Price(201 * GWEI, None)}),
        ("a tip above the price", {"price": Price(30 * GWEI, 31 * GWEI)}),
        ("no price", {"price": Price(0, 0)}),
        ("a gas limit that would burn the balance", {"gas_limit": MAX_GAS + 1}),
        ("a negative amount", {"amount": -1}),
        ("a negative nonce", {"nonce": -1}),
    ],
)
def test_a_sweep_to_anywhere_else_or_at_any_price_is_refused(
    signer: Signer, situation: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(SigningRefused):
        signer.sign_sweep(coin_sweep(**changes), index=5, address=signer.address(5))


@pytest.mark.parametrize(("index", "address"), [(5, WALLET.address(6)), (6, WALLET.address(5)), (5, TREASURY)])
def test_an_address_that_is_not_that_of_its_index_is_not_signed_for(signer: Signer, index: int, address: bytes) -> None:
    with pytest.raises(SigningRefused):
        signer.sign_sweep(coin_sweep(), index=index, address=address)


@pytest.mark.parametrize("index", [-1, 2**31, 2**40])
def test_an_index_outside_the_branch_is_refused(signer: Signer, index: int) -> None:
    with pytest.raises(SigningRefused):
        signer.sign_sweep(coin_sweep(), index=index, address=WALLET.address(5))


@pytest.mark.parametrize(
    ("situation", "changes"),
    [
        ("to the treasury", {"recipient": TREASURY}),
        ("to another of our addresses", {"recipient": WALLET.address(4)}),
        ("of tokens", {"token": TOKEN}),
        ("of more than any gas costs", {"amount": MAX_GAS * 200 * GWEI + 1}),
        ("at a price above the ceiling", {"price": Price(201 * GWEI, GWEI)}),
        ("on a chain that is not configured", {"chain_id": 1}),
    ],
)
def test_a_top_up_elsewhere_or_of_more_than_gas_is_refused(
    signer: Signer, situation: str, changes: dict[str, Any]
) -> None:
    order = coin_sweep(**{"recipient": WALLET.address(3), "amount": 10**15} | changes)
    with pytest.raises(SigningRefused):
        signer.sign_topup(order, index=3)
