# pragma version 0.4.3
# pragma evm-version paris
"""
@title The ERC-20 of the local dev chain: plain, 6 decimals, anybody may mint. It has no worth anywhere.
"""
from ethereum.ercs import IERC20

implements: IERC20

name: public(constant(String[16])) = "Test USD"
symbol: public(constant(String[4])) = "USDC"
decimals: public(constant(uint8)) = 6

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@external
def mint(to: address, amount: uint256):
    self.totalSupply += amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=empty(address), receiver=to, value=amount)


@internal
def _move(sender: address, to: address, amount: uint256):
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=sender, receiver=to, value=amount)


@external
def transfer(to: address, amount: uint256) -> bool:
    self._move(msg.sender, to, amount)
    return True


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self.allowance[sender][msg.sender] -= amount
    self._move(sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    log IERC20.Approval(owner=msg.sender, spender=spender, value=amount)
    return True


@external
def transferMany(receivers: DynArray[address, 64], amounts: DynArray[uint256, 64]):
    """
    @notice Pay each receiver its amount: several Transfer logs in one transaction.
    """
    assert len(receivers) == len(amounts)
    for i: uint256 in range(len(receivers), bound=64):
        self._move(msg.sender, receivers[i], amounts[i])
