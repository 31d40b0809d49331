import pytest

from ctrip.domain.idempotency import hash_body


def test_the_order_of_keys_makes_no_other_request() -> None:
    assert hash_body({"amount": "1", "metadata": {"a": 1, "b": 2}}) == hash_body(
        {"metadata": {"b": 2, "a": 1}, "amount": "1"}
    )


@pytest.mark.parametrize("other", [{"amount": "1.0"}, {"amount": 1}, {"amount": "1", "token": None}, {}])
def test_another_body_is_another_request(other: dict[str, object]) -> None:
    assert hash_body(other) != hash_body({"amount": "1"})
