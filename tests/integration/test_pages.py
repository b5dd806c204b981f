"""Lists and exports in pages: everything once, in order, and ``next`` is null at the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.cycles import Cycle

COUNT = 7

FILL = {
    "users": "INSERT INTO users (username) SELECT 'user ' || n FROM generate_series(1, :n) n",
    "chats": "INSERT INTO chats (title) SELECT 'chat ' || n FROM generate_series(1, :n) n",
    "members": "INSERT INTO chat_members (chat_id, user_id) SELECT id, 1 FROM chats",
    "providers": "INSERT INTO providers (name, api_endpoint, kind)"
    " SELECT 'provider ' || n, 'http://localhost', 'openai' FROM generate_series(1, :n) n",
    "llms": "INSERT INTO llms (provider_id, llm_name)"
    " SELECT 1, 'llm ' || n FROM generate_series(1, :n) n",
    "records": "INSERT INTO records (user_id, instruction_id, type, outcome, submitted_at)"
    " SELECT 1, gen_random_uuid(), 'USER_GET', 'success', now() FROM generate_series(1, :n) n",
    "messages": "INSERT INTO messages (chat_id, user_id, role, content)"
    " SELECT 1, 1, 'user', 'message ' || n FROM generate_series(1, :n) n",
    "instructions": "INSERT INTO instructions (id, type, state, data, user_ids, deadline_at,"
    " final_at, outcome) SELECT gen_random_uuid(), 'USER_GET', 'final', '{}', '{1}', now(), now(),"
    ' \'{"status": "success", "data": {}}\' FROM generate_series(1, :n) n',
    "attempts": "INSERT INTO attempts (instruction_id, number, user_id, provider_name, llm_name,"
    " worker, status, lease_until) SELECT gen_random_uuid(), 1, 1, 'p', 'm', 'w', 'answered',"
    " now() FROM generate_series(1, :n) n",
}


def fill(cycle: Cycle, *tables: str, count: int = COUNT) -> None:
    for table in tables:
        cycle.sql(FILL[table], n=count)


def pages(cycle: Cycle, name: str, **data: Any) -> list[dict[str, Any]]:
    """All pages, by the ``next`` of each."""
    found = [cycle.do(name, **data)]
    while found[-1]["next"] is not None:
        assert len(found) < 20, "pages without an end"
        found.append(cycle.do(name, **data, after=found[-1]["next"]))
    return found


LISTS: list[tuple[str, dict[str, Any], tuple[str, ...], str, str]] = [
    ("USER_LIST", {}, ("users",), "users", "user_id"),
    (
        "USER_INSTRUCTION_RECORDING_LIST",
        {"user_id": 1},
        ("users", "records"),
        "records",
        "record_id",
    ),
    ("CHAT_LIST", {}, ("chats",), "chats", "chat_id"),
    ("CHAT_LIST_BY_USER", {"user_id": 1}, ("users", "chats", "members"), "chats", "chat_id"),
    ("LLM_PROVIDER_LIST", {}, ("providers",), "providers", "provider_id"),
    ("LLM_LIST", {}, ("providers", "llms"), "llms", "llm_id"),
    ("LLM_LIST_BY_PROVIDER", {"provider_id": 1}, ("providers", "llms"), "llms", "llm_id"),
]
each_list = pytest.mark.parametrize(
    ("name", "data", "tables", "plural", "key"), LISTS, ids=[item[0] for item in LISTS]
)


@each_list
def test_a_list_comes_in_pages_of_the_size_that_was_asked_for(
    cycle: Cycle, name: str, data: dict[str, Any], tables: tuple[str, ...], plural: str, key: str
) -> None:
    fill(cycle, *tables)

    found = pages(cycle, name, limit=3, **data)

    assert [len(page[plural]) for page in found] == [3, 3, 1]
    ids = [item[key] for page in found for item in page[plural]]
    assert ids == list(range(1, COUNT + 1))
    assert [page["next"] for page in found] == [3, 6, None]


@each_list
def test_a_list_that_fills_its_page_has_no_next(
    cycle: Cycle, name: str, data: dict[str, Any], tables: tuple[str, ...], plural: str, key: str
) -> None:
    fill(cycle, *tables)

    page = cycle.do(name, limit=COUNT, **data)

    assert (len(page[plural]), page["next"]) == (COUNT, None)


def test_a_page_has_a_hundred_unless_it_was_asked_for_more(cycle: Cycle) -> None:
    fill(cycle, "users", count=1_001)

    assert [len(page["users"]) for page in pages(cycle, "USER_LIST", after=901)] == [100]
    assert len(cycle.do("USER_LIST")["users"]) == 100
    assert [len(page["users"]) for page in pages(cycle, "USER_LIST", limit=1_000)] == [1_000, 1]


def test_what_is_deleted_between_two_pages_moves_nothing(cycle: Cycle) -> None:
    fill(cycle, "users")
    first = cycle.do("USER_LIST", limit=3)
    cycle.do("USER_DELETE", user_id=2)

    second = cycle.do("USER_LIST", limit=3, after=first["next"])

    assert [user["user_id"] for user in second["users"]] == [4, 5, 6]


def test_instructions_come_in_pages_from_the_newest_on(cycle: Cycle) -> None:
    fill(cycle, "instructions")

    found = pages(cycle, "INSTRUCTION_LIST", limit=3, type="USER_GET")

    seqs = [item["seq"] for page in found for item in page["instructions"]]
    assert seqs == list(range(COUNT, 0, -1))


def test_a_chats_export_comes_in_pages(cycle: Cycle) -> None:
    fill(cycle, "users", "chats", count=1)
    fill(cycle, "messages", count=1_001)

    found = pages(cycle, "CHAT_EXPORT", chat_id=1)

    ids = [message["message_id"] for page in found for message in page["chat"]["messages"]]
    assert ids == list(range(1, 1_002))
    assert len(found) == 3


SECTIONS = ("messages", "records", "instructions", "attempts")


@pytest.mark.parametrize(
    "counts", [(0, 0, 0, 0), (500, 0, 500, 1), (501, 499, 1, 3), (3, 3, 3, 1_001)]
)
def test_a_users_export_has_every_row_once_wherever_its_pages_end(
    cycle: Cycle, counts: tuple[int, ...]
) -> None:
    fill(cycle, "users", "chats", "members", count=1)
    for section, count in zip(SECTIONS, counts, strict=True):
        fill(cycle, section, count=count)

    found = pages(cycle, "USER_EXPORT", user_id=1)

    assert len(found[0]["chats"]) == 1
    assert all(page["user"]["user_id"] == 1 for page in found)
    sizes = {name: sum(len(page.get(name, [])) for page in found) for name in SECTIONS}
    own = cycle.count("instructions", "type = 'USER_EXPORT'")
    assert sizes["instructions"] - counts[2] in range(own + 1)  # it may see itself
    del sizes["instructions"]
    assert tuple(sizes.values()) == (counts[0], counts[1], counts[3])
    ids = [message["message_id"] for page in found for message in page.get("messages", [])]
    assert len(set(ids)) == counts[0]
    assert all(sum(len(page.get(name, [])) for name in SECTIONS) <= 500 for page in found)
