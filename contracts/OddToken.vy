# pragma version 0.4.3
# pragma evm-version paris
"""
@title A token with every bad habit: it keeps a fee that its logs do not tell of, scales all balances, says false
       instead of reverting, and logs whatever it is told to. Anybody may do anything. It has no worth anywhere.
"""
event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256

name: public(constant(String[16])) = "Odd USD"
symbol: public(constant(String[4])) = "USDC"
decimals: public(constant(uint8)) = 6

WHOLE: constant(uint256) = 10_000

shares: HashMap[address, uint256]
scale_bps: public(uint256)
fee_bps: public(uint256)


@deploy
def __init__():
    self.scale_bps = WHOLE


@external
@view
def balanceOf(owner: address) -> uint256:
    return self.shares[owner] * self.scale_bps // WHOLE


@external
def mint(to: address, amount: uint256):
    self.shares[to] += amount * WHOLE // self.scale_bps
    log Transfer(sender=empty(address), receiver=to, value=amount)


@external
def keep_fee(bps: uint256):
    """
    @notice From now on so much of each transfer is kept, while its log tells of the whole.
    """
    self.fee_bps = bps


@external
def rebase(bps: uint256):
    """
    @notice Let every balance be so much of what was minted. No log tells of it.
    """
    self.scale_bps = bps


@external
def transfer(to: address, amount: uint256) -> bool:
    moved: uint256 = amount * WHOLE // self.scale_bps
    if self.shares[msg.sender] < moved:
        return False
    self.shares[msg.sender] -= moved
    self.shares[to] += moved * (WHOLE - self.fee_bps) // WHOLE
    log Transfer(sender=msg.sender, receiver=to, value=amount)
    return True


@external
def say_two(first: bytes32, second: bytes32, words: Bytes[128]):
    raw_log([first, second], words)


@external
def say_three(first: bytes32, second: bytes32, third: bytes32, words: Bytes[128]):
    raw_log([first, second, third], words)


@external
def say_four(first: bytes32, second: bytes32, third: bytes32, fourth: bytes32, words: Bytes[128]):
    raw_log([first, second, third, fourth], words)


@external
def spam(count: uint256):
    """
    @notice Log transfers of nobody's money to addresses that are nobody's.
    """
    for i: uint256 in range(count, bound=16384):
        log Transfer(sender=msg.sender, receiver=convert(convert(i + 2 ** 64, uint160), address), value=i + 1)
