"""The statement of a create as other drivers take it: the same text, with values of their own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ctrip.database import creating
from ctrip.database.creating import Kept
from ctrip.domain.idempotency import Answer, Once
from ctrip.domain.payments import payment_object
from tests.factories import NOON, ids, make_payment

_NUMBER = "CAST(:n AS TEXT)"
_OWN = {
    "id": f"'pay_' || {_NUMBER}",
    "event_id": f"'evt_' || {_NUMBER}",
    "delivery_id": f"'whd_' || {_NUMBER}",
    "key": _NUMBER,
    "lock_number": f"CAST({_NUMBER} AS BIGINT)",
    "derivation_index": f"CAST({_NUMBER} AS BIGINT)",
    "address": f"substring(sha256(convert_to({_NUMBER}, 'UTF8')) FOR 20)",
}
"""What differs from create to create, as pgbench makes it of a number that rises."""


def numbered() -> tuple[str, list[str]]:
    """Return the statement with $1, $2 … for what is given, and the names of these in order."""
    prepared = creating.ADD_ONCE
    numbers = {name: f"${number}" for number, (name, *_) in enumerate(prepared._parameters, start=1)}
    return str(prepared._compiled) % (numbers | _constants()), [key for _, key, _ in prepared._parameters]


def pgbench_script(merchant_id: str, *, clients: int) -> str:
    """Return a script that creates a payment with ids of its own, and all else as an order has it.

    Ids rise as ours do, from that of the variable `i` on.
    """
    prepared, values = creating.ADD_ONCE, _values(merchant_id)
    texts = {
        name: _OWN.get(key) or _literal(values[key] if convert is None else convert(values[key]))
        for name, key, convert in prepared._parameters
    }
    statement = " ".join((str(prepared._compiled) % (texts | _constants())).split())
    return f"\\set i :i + 1\n\\set n :i * {clients} + :client_id\n{statement};\n"


def _values(merchant_id: str) -> dict[str, Any]:
    payment = make_payment(merchant_id=merchant_id, order_id="bench-1", webhook_url=None)
    answer = Answer(201, str(payment_object(payment, read_block=0)))
    kept = Kept(Once("POST /api/v1/payments", "key", bytes(32)), answer, NOON)
    return creating.values_of(payment, wallet_fingerprint=b"pgbench!", index=0, new_id=ids(), kept=kept)


def _constants() -> dict[str, str]:
    return {name: _literal(value) for name, value in creating.ADD_ONCE._constants.items()}


def _literal(value: Any) -> str:
    """Write a constant; pgbench would take what follows a colon for a variable, wherever that stands."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes | memoryview):
        return f"E'\\\\x{bytes(value).hex()}'"
    if isinstance(value, str | datetime):
        return "E'" + str(value).replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3A") + "'"
    if isinstance(value, Sequence):
        return f"ARRAY[{', '.join(map(_literal, value))}]"
    return str(value)
