import pytest

from ctrip.domain.pages import list_object


@pytest.mark.parametrize(("found", "shown", "next_cursor"), [(0, 0, None), (1, 1, None), (2, 2, None), (3, 2, "pay_1")])
def test_a_page_says_whether_and_where_the_list_goes_on(found: int, shown: int, next_cursor: str | None) -> None:
    objects: list[dict[str, object]] = [{"id": f"pay_{number}"} for number in range(found)]
    assert list_object(objects, limit=2) == {
        "object": "list",
        "data": objects[:shown],
        "has_more": next_cursor is not None,
        "next_cursor": next_cursor,
    }
