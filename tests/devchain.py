"""The dev chain in a test's hands: nothing is mined, forked or forgotten unless the test says so."""

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ctrip.domain.addresses import hex_text
from ctrip.local.node import DevNode

ETHER = 10**18
USDC = 10**6


class DevChain(DevNode):
    """Anvil without mining of its own. Transactions wait in the pool until `mine`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        accounts = self.accounts()
        self.faucet = accounts[0]
        self.treasury = accounts[-1]

    # --- blocks -----------------------------------------------------------------------------------------------------

    def mine(self, blocks: int = 1, *, seconds_apart: int = 1) -> int:
        """Mine blocks; the first takes all that waits in the pool. Returns the new head's number."""
        self.call("anvil_mine", hex(blocks), hex(seconds_apart))
        return self.block_number()

    def mine_at(self, timestamp: int) -> int:
        """Mine one block with this time, which must be later than the head's."""
        self.call("evm_setNextBlockTimestamp", hex(timestamp))
        return self.mine()

    def set_time(self, seconds: float) -> None:
        """Set the node's clock, in seconds since 1970; blocks that are mined later follow it."""
        self.call("evm_setTime", int(seconds))

    def head_time(self) -> int:
        """The time of the newest block, in seconds since 1970."""
        return int(self.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def mine_every(self, seconds: int) -> None:
        """Mine by the clock from now on; 0 stops it."""
        self.call("evm_setIntervalMining", seconds)

    def automine(self, on: bool) -> None:
        """Mine each transaction at once, or (as at the start) none."""
        self.call("evm_setAutomine", on)

    def reorg(self, depth: int, transactions: Sequence[tuple[bytes | dict[str, Any], int]] = ()) -> None:
        """Replace the newest `depth` blocks by as many others.

        What was in them is gone for good, save what `transactions` puts back: raw bytes (see `raw`) or a request for
        an unlocked account, each with the offset of its block, 0 for the first one replaced.
        """
        placed = [[hex_text(tx) if isinstance(tx, bytes) else tx, offset] for tx, offset in transactions]
        self.call("anvil_reorg", depth, placed)

    def snapshot(self) -> str:
        """Remember chain and pool."""
        return self.call("evm_snapshot")

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot, once."""
        assert self.call("evm_revert", snapshot) is True

    def drop_pool(self) -> None:
        """Forget all transactions that were not mined."""
        self.call("anvil_dropAllTransactions")

    # --- money ------------------------------------------------------------------------------------------------------

    def pay(self, address: bytes, amount: int, *, sender: bytes | None = None) -> bytes:
        """Send native coin in base units; return the transaction's hash."""
        return self.send(sender=sender or self.faucet, to=address, value=amount)

    def pay_token(self, token: bytes, address: bytes, amount: int, *, sender: bytes | None = None) -> bytes:
        """Send tokens in base units; return the transaction's hash."""
        return self.send_token(token, to=address, amount=amount, sender=sender or self.faucet)

    def pay_tokens(self, token: bytes, payments: Sequence[tuple[bytes, int]]) -> bytes:
        """Send tokens to several addresses, or several times to one, in one transaction: one log each."""
        addresses = [hex_text(address) for address, _ in payments]
        arguments = encode(["address[]", "uint256[]"], [addresses, [amount for _, amount in payments]])
        call = keccak(text="transferMany(address[],uint256[])")[:4] + arguments
        return self.send(sender=self.faucet, to=token, call=call, gas=hex(3_000_000))

    def deploy_token(self) -> bytes:
        """Deploy a fresh test token, give the faucet 1,000,000 of it, and return its address. Mines two blocks."""
        creation = self.send_token_contract(self.faucet)
        self.mine()
        token = bytes.fromhex(self.wait_mined(creation)["contractAddress"][2:])
        self.mint(token, to=self.faucet, amount=1_000_000 * USDC, sender=self.faucet)
        self.mine()
        return token

    def raw(self, tx_hash: bytes) -> bytes:
        """The signed bytes of a mined or waiting transaction."""
        return bytes.fromhex(self.call("eth_getRawTransactionByHash", hex_text(tx_hash))[2:])

    # --- odd circumstances ------------------------------------------------------------------------------------------

    def set_balance(self, address: bytes, amount: int) -> None:
        """Give an address this much native coin, out of nothing."""
        self.call("anvil_setBalance", hex_text(address), hex(amount))

    def set_code(self, address: bytes, code: bytes) -> None:
        """Put a contract at an address; `bytes.fromhex("5f5ffd")` refuses every payment."""
        self.call("anvil_setCode", hex_text(address), hex_text(code))
