"""The statements of an erasure (``erasing.py``): each looks for what is left, a batch of it at most."""

from __future__ import annotations

from sqlalchemy import text

#: What an erased instruction's envelope says.
SAID = "Erased with its user."

#: Two runs for the same user take turns.
LOCK = text("SELECT FROM former_users WHERE user_id = :user_id FOR UPDATE")
USERNAMES = text("SELECT usernames FROM former_users WHERE user_id = :user_id")
COUNT = text("""
    UPDATE former_users
       SET erased = erased || jsonb_build_object(
               CAST(:table AS text), coalesce(CAST(erased ->> :table AS bigint), 0) + :count)
     WHERE user_id = :user_id
""")
DATE_ANEW = text("""
    UPDATE instructions SET published_at = clock_timestamp(), started_at = clock_timestamp()
     WHERE id = :id AND outcome IS NULL
""")
DONE = text("""
    UPDATE former_users SET erased_at = clock_timestamp(), usernames = NULL, chat_ids = '{}'
     WHERE user_id = :user_id
""")

# --- the rows that results are made of -----------------------------------------------------------

RECORDS = text("""
    DELETE FROM records WHERE id IN (
        SELECT id FROM records WHERE user_id = :user_id ORDER BY id LIMIT :batch
    ) RETURNING id
""")
#: Of those that were remembered, or that the user has come to since; whoever joined one keeps it.
OWN_CHAT = text("""
    SELECT mine.chat_id FROM (
        SELECT unnest(chat_ids) AS chat_id FROM former_users WHERE user_id = :user_id
        UNION SELECT chat_id FROM chat_members WHERE user_id = :user_id
    ) AS mine
     JOIN chats ON chats.id = mine.chat_id
     WHERE NOT EXISTS (SELECT FROM chat_members
                        WHERE chat_id = mine.chat_id AND user_id <> :user_id)
     LIMIT 1
""")
#: The newest first: a message takes those below it along.
OWN_CHAT_MESSAGES = text("""
    DELETE FROM messages WHERE id IN (
        SELECT id FROM messages WHERE chat_id = :chat_id ORDER BY id DESC LIMIT :batch
    ) RETURNING instruction_id
""")
#: Also what somebody else had answered anew: it is an answer to the user's words.
MESSAGES = text("""
    WITH due AS (
        (SELECT id FROM messages WHERE user_id = :user_id ORDER BY id LIMIT :batch)
        UNION (SELECT id FROM messages WHERE former_user_id = :user_id ORDER BY id LIMIT :batch)
    ), answers AS (
        SELECT answers.id FROM due JOIN messages AS answers ON answers.parent_id = due.id
          JOIN messages AS questions ON questions.id = due.id
         WHERE questions.role = 'user' AND answers.role = 'assistant'
    )
    UPDATE messages
       SET content = '', parts = NULL, reasoning = NULL, tool_calls = NULL, erased = true,
           user_id = nullif(user_id, :user_id), former_user_id = nullif(former_user_id, :user_id)
     WHERE id IN (SELECT id FROM due UNION SELECT id FROM answers)
    RETURNING instruction_id
""")
FORGET_ATTEMPTS = text("""
    UPDATE attempts SET user_id = NULL WHERE id IN (
        SELECT id FROM attempts WHERE user_id = :user_id ORDER BY id LIMIT :batch
    ) RETURNING id
""")
EVENTS = text("DELETE FROM events WHERE instruction_id = ANY (:ids) RETURNING first")

# --- instructions and their results --------------------------------------------------------------

#: In the data of an instruction that has not succeeded; one that has has ids.
_NAMED = """
    (outcome ->> 'status' IS DISTINCT FROM 'success'
     AND (data ->> 'username' = ANY (CAST(:usernames AS text[]))
          OR data -> 'usernames' ?| CAST(:usernames AS text[])
          OR data -> 'add_users' ?| CAST(:usernames AS text[])
          OR data -> 'remove_users' ?| CAST(:usernames AS text[])))
"""
#: What is still to be done for the user ends here. Its chain, or the sweeper, makes it final.
CANCEL = text(f"""
    UPDATE instructions
       SET data = '{{}}', state = 'executed', executed_at = now(), published_at = now(),
           idempotency_key = NULL, fingerprint = NULL, wait_reason = NULL, not_before = NULL,
           turn = CASE WHEN turn = 'queued' THEN 'done' ELSE turn END,
           outcome = jsonb_build_object(
               'status', 'error', 'message', CAST(:said AS text), 'data', CAST('{{}}' AS jsonb),
               'instruction_id', CAST(id AS text), 'error', jsonb_build_object(
                   'code', 'cancelled', 'stage', 'execute', 'details', CAST('{{}}' AS jsonb)))
     WHERE outcome IS NULL AND final_at IS NULL AND type <> 'USER_ERASE'
       AND (user_ids @> ARRAY[CAST(:user_id AS integer)]
            OR data -> 'user_id' = to_jsonb(CAST(:user_id AS integer))
            OR data -> 'user_ids' @> to_jsonb(CAST(:user_id AS integer))
            OR data -> 'add_users' @> to_jsonb(CAST(:user_id AS integer))
            OR data -> 'remove_users' @> to_jsonb(CAST(:user_id AS integer))
            OR {_NAMED})
    RETURNING id
""")
#: An open USER_ERASE is at work, or about to be.
_CLOSED = "(final_at IS NOT NULL OR outcome IS NOT NULL AND type <> 'USER_ERASE')"
BLANK = text(f"""
    UPDATE instructions
       SET data = '{{}}', idempotency_key = NULL, fingerprint = NULL,
           outcome = outcome
               || jsonb_build_object('data', CAST('{{}}' AS jsonb), 'message', CAST(:said AS text))
               || CASE WHEN outcome -> 'error' IS NULL THEN CAST('{{}}' AS jsonb)
                       ELSE jsonb_build_object('error', (outcome -> 'error')
                            || jsonb_build_object('details', CAST('{{}}' AS jsonb))) END
     WHERE id = ANY (:ids) AND {_CLOSED}
       AND (data <> '{{}}' OR idempotency_key IS NOT NULL OR outcome ->> 'message' <> :said)
    RETURNING id
""")
WINDOW = text("""
    SELECT max(seq) FROM (
        SELECT seq FROM instructions WHERE seq > :after ORDER BY seq LIMIT :looked_at
    ) AS next
""")
#: Anywhere in a result. Of a generation's it is known where: that is several times faster, and most of a
#: large table.
_SHOWN = """
    (jsonb_path_exists(outcome, '$.**.user_id ? (@ == $user_id)', CAST(:vars AS jsonb))
     OR jsonb_path_exists(outcome, '$.**.former_user_id ? (@ == $user_id)', CAST(:vars AS jsonb))
     OR :answers_are_known
        AND jsonb_path_exists(outcome, '$.**.message_id ? (@ == $answers[*])', CAST(:vars AS jsonb)))
"""
_SHOWN_AS_RESPONSE = """
    (outcome #> '{data,llm_response,user_id}' = to_jsonb(CAST(:user_id AS integer))
     OR outcome #> '{data,llm_response,former_user_id}' = to_jsonb(CAST(:user_id AS integer))
     OR :answers_are_known AND CAST(:vars AS jsonb) -> 'answers'
                               @> (outcome #> '{data,llm_response,message_id}'))
"""
#: Whatever may say something of the user: its own, what names it, what happened in a chat that is
#: gone, and every result with the user's id anywhere in it.
CANDIDATES = text(f"""
    SELECT id, data, outcome, user_ids, chat_id, {_NAMED} AS named FROM instructions
     WHERE seq > :after AND seq <= :end AND {_CLOSED}
       AND (user_ids @> ARRAY[CAST(:user_id AS integer)]
            OR chat_id = ANY (:chat_ids)
            OR {_NAMED}
            OR CASE WHEN type LIKE 'LLM\\_RESPONSE\\_%' THEN {_SHOWN_AS_RESPONSE} ELSE {_SHOWN} END
            OR type = 'USER_EXPORT'
               AND jsonb_path_exists(outcome, '$.** ? (@ == $names[*])', CAST(:vars AS jsonb)))
     ORDER BY seq FOR NO KEY UPDATE
""")
REWRITE = text("""
    UPDATE instructions SET data = CAST(:data AS jsonb), outcome = CAST(:outcome AS jsonb)
     WHERE id = :id
""")
OWN_INSTRUCTIONS = text(f"""
    SELECT id FROM instructions
     WHERE user_ids @> ARRAY[CAST(:user_id AS integer)] AND cardinality(user_ids) = 1 AND {_CLOSED}
       AND (data <> '{{}}' OR idempotency_key IS NOT NULL OR outcome ->> 'message' <> :said)
     LIMIT :batch
""")
GONE_CHATS = text("""
    SELECT unnest(chat_ids) FROM former_users WHERE user_id = :user_id EXCEPT SELECT id FROM chats
""")
ERASED_ANSWERS = text("""
    SELECT id FROM messages WHERE erased AND coalesce(user_id, former_user_id) IS NOT NULL
""")
OLDER_TRANSACTIONS = text("""
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
       AND xact_start < :since
""")
