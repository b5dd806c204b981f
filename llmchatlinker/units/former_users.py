"""What is remembered of a user who goes: enough to erase later what the user has left behind."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

#: Its names, the chats that go with it, and those of its instructions that have gone before.
_REMEMBER = text("""
    INSERT INTO former_users (user_id, usernames, chat_ids)
    SELECT users.id, ARRAY(
               SELECT users.username
               UNION SELECT outcome #>> '{data,user,username}' FROM instructions
                      WHERE user_ids @> ARRAY[CAST(:user_id AS integer)]
                        AND outcome #>> '{data,user,username}' IS NOT NULL
           ), ARRAY(
               SELECT chat_id FROM chat_members WHERE user_id = :user_id
                AND NOT EXISTS (SELECT FROM chat_members AS other
                                 WHERE other.chat_id = chat_members.chat_id
                                   AND other.user_id <> :user_id)
               UNION (
                   SELECT coalesce(chat_id, CAST(outcome #>> '{data,chat,chat_id}' AS integer))
                     FROM instructions
                    WHERE user_ids @> ARRAY[CAST(:user_id AS integer)]
                      AND (chat_id IS NOT NULL OR type = 'CHAT_CREATE' AND outcome ? 'data'
                           AND outcome #>> '{data,chat,chat_id}' IS NOT NULL)
                   EXCEPT SELECT id FROM chats
               ))
      FROM users WHERE users.id = :user_id
    ON CONFLICT (user_id) DO UPDATE
       SET usernames = ARRAY(SELECT unnest(former_users.usernames) UNION
                             SELECT unnest(excluded.usernames)),
           chat_ids = ARRAY(SELECT unnest(former_users.chat_ids) UNION
                            SELECT unnest(excluded.chat_ids))
""")
_MESSAGES = text("""
    UPDATE messages SET user_id = NULL, former_user_id = user_id WHERE user_id = :user_id
""")


def remember(session: Session, user_id: int) -> None:
    """Note the user's id, name and chats. The user's row is locked, and still there."""
    session.execute(_REMEMBER, {"user_id": user_id})


def leave_messages(session: Session, user_id: int) -> None:
    """What the user said in shared chats stays, and is nobody's; whose it was is noted."""
    values: dict[str, Any] = {"user_id": user_id}
    session.execute(_MESSAGES, values)
