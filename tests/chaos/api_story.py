"""Two stories of an API that is killed: keys that sixteen use at once, and a load under which everything dies."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random

from tests.chaos import api_faults
from tests.chaos.api_faults import Fault
from tests.chaos.askers import MADE, Ask, Asker, Outcome
from tests.chaos.ledger import Ledger, ask_database
from tests.sink import Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

AT_ONCE = 16
PROGRAMS = 8
PAUSE_S = 0.05
"""Between two requests of a program: a hundred in a second, so that what dies has a core to come back on."""
_PENDING = "SELECT count(*) FROM webhook_deliveries WHERE url = %s AND status = 'pending'"
_REMEMBERED = 250
"""How many of its payments a program asks for once more in the end, the newest of them."""


@contextmanager
def receiving(stack: RunningStack) -> Iterator[str]:
    """Receive webhooks, until all are delivered; yield where to send them.

    Share it between stories: what was on its way while Postgres died is sent again half a minute later.
    """
    with Sink() as sink:
        yield sink.url
        pending = partial(ask_database, stack, _PENDING, sink.url)
        wait_until(lambda: pending() == [(0,)], within_s=120, every_s=0.5, what="every webhook is delivered")


def tell_bursts(stack: RunningStack, hook: str, *, seed: int, keys: int, kills: int) -> Ledger:
    """Use each key sixteen times at once, half of them with other bodies, and kill the API that has just got one.

    Every request is repeated until it is told what stays; then nobody was told two different things of a key.
    """
    dice = Random(seed)
    ledger = Ledger(stack, f"bursts-{seed}-{os.getpid()}-")
    chosen = dice.sample(range(AT_ONCE, keys * AT_ONCE), kills)
    killer = _Killer(stack, dice=Random(seed), at=chosen)
    with _askers(stack, AT_ONCE, dice, on_sent=killer.sent) as askers, ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(keys):
            asks = _burst(f"{ledger.name}{number:05}", hook, dice)
            list(pool.map(partial(_ask, ledger), askers, asks))
    assert len(killer.killed) == kills
    api_faults.wait_well(stack)
    ledger.check()
    told = ledger.outcomes
    assert told[Outcome.OTHER_BODY] + sum(told[each] for each in MADE) == keys * AT_ONCE
    # The half that shares a body has as many bodies against it: whoever wins, some are refused.
    assert told[Outcome.OTHER_BODY] >= keys * AT_ONCE // 2
    return ledger


def tell_load(stack: RunningStack, hook: str, *, seed: int, api_kills: int, postgres_kills: int) -> Ledger:
    """Kill -9 the API and Postgres while programs ask, ask again, ask otherwise, and look at what they made.

    Whatever was acknowledged is there, at any moment and in the end.
    """
    dice = Random(seed)
    faults = list(_faults(stack, dice, api_kills=api_kills, postgres_kills=postgres_kills))
    ledger = Ledger(stack, f"load-{seed}-{os.getpid()}-")
    over = threading.Event()
    with _askers(stack, PROGRAMS, dice) as askers, ThreadPoolExecutor(PROGRAMS) as pool:
        programs = [_Program(asker, ledger, number, hook) for number, asker in enumerate(askers)]
        living = [pool.submit(program.live, over) for program in programs]
        try:
            for fault in faults:
                _let_pass(living, programs, dice.randrange(20, 60))
                print(f"{ledger.name} {time.strftime('%T')} {fault()}")  # noqa: T201
            _let_pass(living, programs, 100)
        finally:
            over.set()
        for program in living:
            program.result()
        api_faults.wait_well(stack)
        list(pool.map(_Program.ask_all_again, programs))
    ledger.check()
    return ledger


def _faults(stack: RunningStack, dice: Random, *, api_kills: int, postgres_kills: int) -> Iterator[Fault]:
    """Every other death of Postgres is that of a backend."""
    names = list(api_faults.api_names(stack).values())

    def kill_api() -> str:
        name = dice.choice(names)
        api_faults.wait_serving(stack, name)
        old_pid = stack.pids()[name]
        told = api_faults.kill_api(stack, name, dice)
        stack.wait_restarted(name, old_pid=old_pid, within_s=api_faults.BACK_WITHIN_S)
        return told

    deaths: list[Fault] = [partial(_of_postgres(number), stack) for number in range(postgres_kills)]
    deaths += [kill_api] * api_kills
    dice.shuffle(deaths)
    yield from deaths


def _of_postgres(number: int) -> Callable[[RunningStack], str]:
    return (api_faults.kill_postgres, api_faults.kill_backend)[number % 2]


class _Killer:
    """Kills the API that a create was just sent to, at creates chosen by their numbers."""

    def __init__(self, stack: RunningStack, *, dice: Random, at: Iterable[int]) -> None:
        self._stack, self._dice, self._at = stack, dice, set(at)
        self._names = api_faults.api_names(stack)
        self._lock = threading.Lock()
        self._sent = 0
        self.killed: list[str] = []

    def sent(self, url: str) -> None:
        with self._lock:
            self._sent += 1
            if self._sent in self._at:
                self.killed.append(api_faults.kill_api(self._stack, self._names[url], self._dice))


class _Program:
    """One of those that live under load."""

    def __init__(self, asker: Asker, ledger: Ledger, number: int, hook: str) -> None:
        self._asker, self._ledger, self._hook = asker, ledger, hook
        self._name, self._dice = f"{ledger.name}{number}-", Random(number)
        self._made: list[tuple[Ask, str]] = []
        self.asked = 0

    def live(self, over: threading.Event) -> None:
        while not over.wait(PAUSE_S):
            # Most ask for something new; some doubt, and some are wrong.
            act = self._dice.choice(
                [self._ask_anew] * 6 + [self._ask_again, self._ask_otherwise, self._look, self._look]
            )
            act()
            self.asked += 1

    def ask_all_again(self) -> None:
        """Ask once more for the newest of what was made, and look at it: it is as it was told to be."""
        for ask, payment_id in self._made[-_REMEMBERED:]:
            _ask(self._ledger, self._asker, ask)
            self._look_at(payment_id)

    def _ask_anew(self) -> None:
        ask = Ask(f"{self._name}{self.asked:05}", f"0.{self._dice.randrange(1, 10**6):06}1", self._hook)
        body = _ask(self._ledger, self._asker, ask)
        self._made.append((ask, _id_in(body)))

    def _ask_again(self) -> None:
        for ask, _ in self._some():
            _ask(self._ledger, self._asker, ask)

    def _ask_otherwise(self) -> None:
        for ask, _ in self._some():
            _ask(self._ledger, self._asker, Ask(ask.key, f"{ask.amount}2", ask.hook))

    def _look(self) -> None:
        for _, payment_id in self._some():
            self._look_at(payment_id)

    def _look_at(self, payment_id: str) -> None:
        told = self._asker.until_told(partial(self._asker.read, payment_id))
        assert _id_in(told[-1].body) == payment_id

    def _some(self) -> list[tuple[Ask, str]]:
        return self._dice.sample(self._made, 1) if self._made else []


def _ask(ledger: Ledger, asker: Asker, ask: Ask) -> bytes:
    told = asker.until_told(partial(asker.create, ask))
    ledger.note(ask, told)
    return told[-1].body


def _id_in(body: bytes) -> str:
    return body.partition(b'"id":"')[2].partition(b'"')[0].decode()


def _burst(key: str, hook: str, dice: Random) -> list[Ask]:
    """Sixteen asks under one key: half with one body, each of the others with one of its own."""
    same = [Ask(key, "0.5", hook)] * (AT_ONCE // 2)
    others = [Ask(key, f"0.{number}", hook) for number in range(100, 100 + AT_ONCE // 2)]
    return dice.sample(same + others, AT_ONCE)


def _let_pass(living: list[Future[None]], programs: list[_Program], requests: int) -> None:
    """Wait until so many more requests were told what stays; fail with a program that failed."""
    before = sum(program.asked for program in programs)

    def have_passed() -> bool:
        for program in living:
            if program.done():
                program.result()
        return sum(program.asked for program in programs) >= before + requests

    wait_until(have_passed, within_s=api_faults.BACK_WITHIN_S, what=f"{requests} requests")


@contextmanager
def _askers(
    stack: RunningStack, many: int, dice: Random, *, on_sent: Callable[[str], None] = lambda _: None
) -> Iterator[list[Asker]]:
    facts = stack.facts()
    with ExitStack() as kept:
        askers = [Asker(facts, dice=Random(dice.random()), on_sent=on_sent) for _ in range(many)]
        for asker in askers:
            kept.callback(asker.close)
        yield askers
