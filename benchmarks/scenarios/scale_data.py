"""Rows for the scenario ``scale``, made by PostgreSQL itself."""

from __future__ import annotations

from benchmarks.servers import Place

#: Loading is not what is measured, so it need not wait for the disk.
_HURRY = "SET LOCAL synchronous_commit = off;"

_SEQUENCES = """
    SELECT setval(pg_get_serial_sequence(name, 'id'), (SELECT %s + 1000))
    FROM unnest(ARRAY['users', 'chats', 'messages']) AS name
"""

#: One statement per table; ``%s`` is the number of rows. User n is in chat n, which has message n.
_FILL = (
    "DELETE FROM users",
    "INSERT INTO users (id, username) SELECT n, 'user-' || n FROM generate_series(1, %s) n",
    "INSERT INTO chats (id, title, active_message_id)"
    " SELECT n, 'chat ' || n, n FROM generate_series(1, %s) n",
    "INSERT INTO chat_members (chat_id, user_id) SELECT n, n FROM generate_series(1, %s) n",
    "INSERT INTO messages (id, chat_id, user_id, role, content)"
    " SELECT n, n, n, 'user', 'Message number ' || n FROM generate_series(1, %s) n",
    "INSERT INTO instructions"
    " (id, type, state, data, user_ids, deadline_at, final_at, outcome)"
    " SELECT gen_random_uuid(), 'USER_GET', 'final', '{}', ARRAY[n], now(), now(),"
    ' \'{"status": "success", "message": "User found.", "data": {}}\''
    " FROM generate_series(1, %s) n",
    "INSERT INTO attempts (instruction_id, number, user_id, provider_name, llm_name, worker,"
    " status, lease_until, finished_at)"
    " SELECT gen_random_uuid(), 1, n, 'load', 'echo', 'loader', 'answered', now(), now()"
    " FROM generate_series(1, %s) n",
    "INSERT INTO records (user_id, instruction_id, type, outcome, submitted_at)"
    " SELECT n, gen_random_uuid(), 'USER_GET', 'success', now() FROM generate_series(1, %s) n",
)


def fill_tables(place: Place, rows: int) -> None:
    """``rows`` rows in each of the tables that grow with use."""
    for statement in _FILL:
        place.sql(_HURRY + statement, *([rows] if "%s" in statement else []))
    place.sql(_SEQUENCES, rows)
    place.vacuum()


def add_long_chats(place: Place, lengths: tuple[int, ...], url: str) -> dict[int, int]:
    """A chat per length, its messages one branch; a provider at ``url``; length → chat's id."""
    place.sql("INSERT INTO providers (name, api_endpoint, kind) VALUES ('load', %s, 'openai')", url)
    place.sql("INSERT INTO llms (provider_id, llm_name) SELECT id, 'echo' FROM providers")
    chats: dict[int, int] = {}
    first = 1
    for chat_id, length in enumerate(lengths, start=1):
        place.sql("INSERT INTO chats (id, title) VALUES (%s, 'a long one')", chat_id)
        place.sql("INSERT INTO chat_members (chat_id, user_id) VALUES (%s, 1)", chat_id)
        place.sql(
            _HURRY + "INSERT INTO messages (id, chat_id, parent_id, user_id, role, content)"
            " SELECT n, %s, CASE WHEN n > %s THEN n - 1 END, 1,"
            " CASE WHEN n %% 2 = %s %% 2 THEN 'user' ELSE 'assistant' END,"
            " 'Message number ' || n || ' of a chat that goes on and on.'"
            " FROM generate_series(%s, %s) n",
            chat_id,
            first,
            first,
            first,
            first + length - 1,
        )
        place.sql(
            "UPDATE chats SET active_message_id = %s WHERE id = %s", first + length - 1, chat_id
        )
        chats[length] = chat_id
        first += length
    place.sql(_SEQUENCES, first)
    place.vacuum()
    return chats
