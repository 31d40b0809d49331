"""A payment's life in memory: what was read goes in, standings and events come out, and each arrow is checked."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ctrip.domain.payments import Facts, Payment, Standing, Status, Step, assess, final_amount, steps
from ctrip.domain.standings import TRANSITIONS
from ctrip.domain.transfers import Transfer, TransferStatus
from tests.factories import asked_of, block_time

Move = Callable[["Life"], None]


@dataclass
class Life:
    """One payment, the canonical transfers to its address, and how far its chain was read."""

    payment: Payment
    transfers: tuple[Transfer, ...] = ()
    head: int = 0
    covered: int = 0
    is_held: bool = False
    threshold: int = 0
    events: list[str] = field(default_factory=lambda: ["created"])
    arrows: list[tuple[Status, Status]] = field(default_factory=list)
    told: list[Step] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        return self.payment.standing

    @property
    def final_block(self) -> int:
        return self.head - asked_of(self.payment).required + 1

    @property
    def facts(self) -> Facts:
        final = self.final_block
        return Facts(
            passed_time=block_time(final) if final >= 0 else None,
            covered=self.covered,
            is_sweep_held=self.is_held,
            threshold=self.threshold,
        )

    @property
    def judged(self) -> tuple[Transfer, ...]:
        """The transfers with the status that the rows would give them."""
        deep = self.final_block
        return tuple(
            replace(t, status=TransferStatus.FINAL if t.block_number <= deep else TransferStatus.SEEN)
            for t in self.transfers
        )

    def assess(self) -> None:
        """Do what the listener's transaction does: assess, and store each step with its event and version."""
        assessment = assess(self.payment, self.judged, self.facts)
        for step in steps(self.standing, assessment.standing, is_accepted=self.payment.accepted_at is not None):
            self._store(step)
        assert self.standing == assessment.standing, "the last step leads to where the facts say it stands"
        self.payment = replace(self.payment, standing=assessment.standing, confirmed=assessment.confirmed)

    def _store(self, step: Step) -> None:
        old, new = self.standing, step.standing
        assert old != new, f"{step.event} changes nothing"
        if old.status is not new.status:
            assert new.status in TRANSITIONS[old.status], f"no arrow from {old.status} to {new.status}"
            self.arrows.append((old.status, new.status))
        self.payment = replace(self.payment, standing=new, version=self.payment.version + 1)
        self.told.append(step)
        self.events.append(str(step.event).removeprefix("payment."))


def read(head: int, *transfers: Transfer, covered: int | None = None, held: bool = False) -> Move:
    """Read to block `head`. Given transfers stand in place of those known before: so a reorg takes and brings."""

    def move(life: Life) -> None:
        life.head = head
        life.transfers = transfers or life.transfers
        life.covered = life.covered if covered is None else covered
        life.is_held = held
        life.assess()

    return move


def reorg(head: int, *transfers: Transfer, covered: int | None = None) -> Move:
    """Read to block `head` of another fork, where only these transfers are."""

    def move(life: Life) -> None:
        life.transfers = transfers
        read(head, *transfers, covered=covered)(life)

    return move


def cancel(life: Life) -> None:
    """Cancel, as a merchant may while nothing is stored."""
    assert life.standing.status is Status.PENDING
    assert not life.transfers
    life.payment = replace(life.payment, canceled_at=block_time(life.head))
    life.assess()


def accept(life: Life) -> None:
    """Accept what is final, as a merchant may after the end."""
    assert life.standing.status in (Status.EXPIRED, Status.CANCELED)
    amount = final_amount(life.payment, life.judged)
    assert amount > 0
    life.payment = replace(life.payment, accepted_at=block_time(life.head), accepted_amount=amount)
    life.assess()
