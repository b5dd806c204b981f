"""What the reference says and the code doesn't: meanings, and which errors a type ends with.

Tests compare every name in here with the models, the recorded results and the error tree.
"""

from __future__ import annotations

#: Sections of the page: heading, what stands below it, and the types in it.
SECTIONS: list[tuple[str, str, list[str]]] = [
    (
        "Users",
        "The User Manage Unit. A user is a name that chats and usage hang on; who a person is, the"
        " front-end knows.",
        [
            *("USER_CREATE", "USER_UPDATE", "USER_DELETE", "USER_LIST", "USER_GET"),
            "USER_INSTRUCTION_RECORDING_ENABLE",
            "USER_INSTRUCTION_RECORDING_DISABLE",
            "USER_INSTRUCTION_RECORDS_DELETE",
            "USER_INSTRUCTION_RECORDING_LIST",
        ],
    ),
    (
        "Chats",
        "The Chat Manage Unit. A chat's messages are a tree: an answer's siblings are other answers"
        " to the same question, and a question's siblings are edits of it. The chat remembers the"
        " active branch.",
        [
            *("CHAT_CREATE", "CHAT_UPDATE", "CHAT_DELETE", "CHAT_LOAD", "CHAT_LIST"),
            *("CHAT_LIST_BY_USER", "CHAT_SEARCH", "CHAT_EXPORT"),
        ],
    ),
    (
        "Providers and LLMs",
        "The LLM Manage Unit. Kinds of providers, their settings, and what goes to them:"
        " [Providers](../providers.md).",
        [
            *("LLM_PROVIDER_ADD", "LLM_PROVIDER_UPDATE", "LLM_PROVIDER_DELETE"),
            *("LLM_PROVIDER_LIST", "LLM_PROVIDER_DISCOVER", "LLM_ADD", "LLM_UPDATE"),
            *("LLM_DELETE", "LLM_LIST", "LLM_LIST_BY_PROVIDER"),
        ],
    ),
    (
        "Answers",
        "The LLM Manage Unit, with a queue of its own for generations. What happens to a turn, from"
        " its submission to its end: [Turns](../turns.md).",
        ["LLM_RESPONSE_GENERATE", "LLM_RESPONSE_REGENERATE", "LLM_RESPONSE_CANCEL"],
    ),
    (
        "For operators",
        "The Database Manage Unit.",
        ["INSTRUCTION_GET", "INSTRUCTION_LIST", "USAGE_LIST", "USER_EXPORT", "USER_ERASE"],
    ),
]

#: What a type does.
ABOUT = {
    "USER_CREATE": "Makes a user.",
    "USER_UPDATE": "Changes what is given, and leaves the rest.",
    "USER_DELETE": "Deletes a user, and the chats that nobody else is in. Messages in other chats"
    " stay, without a user. Where the texts must go as well: USER_ERASE, before or afterwards.",
    "USER_LIST": "All users, by id.",
    "USER_GET": "One user, by id or by name: one of the two, not both.",
    "USER_INSTRUCTION_RECORDING_ENABLE": "From now on every instruction that carries the user's id"
    " leaves a record: its type, chat, outcome and times, never its text.",
    "USER_INSTRUCTION_RECORDING_DISABLE": "Leaves no more records. Those that are there stay.",
    "USER_INSTRUCTION_RECORDS_DELETE": "Deletes the user's records.",
    "USER_INSTRUCTION_RECORDING_LIST": "The user's records, oldest first.",
    "CHAT_CREATE": "Makes a chat with one or more members, by names, by ids, or both.",
    "CHAT_UPDATE": "Changes what is given, and leaves the rest. Members are added before others are"
    " removed; one must be left.",
    "CHAT_DELETE": "Deletes a chat with its messages and streams. What is going on in it, or waits"
    " there for its turn, ends as `not_found`.",
    "CHAT_LOAD": "A chat with its members and its newest messages, oldest of them first.",
    "CHAT_LIST": "All chats, by id.",
    "CHAT_LIST_BY_USER": "The chats that the user is a member of, by id.",
    "CHAT_SEARCH": "Messages of the user's chats that have all the words, best first. The query is"
    ' that of a search engine: `"two words"`, `or`, `-without` (PostgreSQL\'s'
    " `websearch_to_tsquery`, without stemming).",
    "CHAT_EXPORT": "A chat with all messages of all branches, also those that were rolled back"
    " (`hidden`), 500 to a page.",
    "LLM_PROVIDER_ADD": "Adds an HTTP endpoint that serves LLMs. Nothing is called yet:"
    " LLM_PROVIDER_DISCOVER does that.",
    "LLM_PROVIDER_UPDATE": "Changes what is given, and leaves the rest. `settings` replaces all"
    " settings.",
    "LLM_PROVIDER_DELETE": "Deletes a provider without LLMs, or with `force` its LLMs as well.",
    "LLM_PROVIDER_LIST": "All providers, by id. Of an API key only that there is one.",
    "LLM_PROVIDER_DISCOVER": "Asks the provider which models it serves: also a test of the address"
    " and the key.",
    "LLM_ADD": "Adds an LLM of a provider, under the name that the provider knows.",
    "LLM_UPDATE": "Changes what is given, and leaves the rest. `settings` replaces all settings.",
    "LLM_DELETE": "Deletes an LLM. Messages stay, and keep its name.",
    "LLM_LIST": "All LLMs, by id.",
    "LLM_LIST_BY_PROVIDER": "A provider's LLMs, by id.",
    "LLM_RESPONSE_GENERATE": "Asks an LLM, in a chat, as one of its members: the system prompt, the"
    " active branch as far as the context window allows, and the question go to it.",
    "LLM_RESPONSE_REGENERATE": "Answers a question anew, with its history as it was. The new answer"
    " is a sibling of the earlier ones, and the end of the active branch.",
    "LLM_RESPONSE_CANCEL": "Ends a generation, wherever it is: [cancelling](../turns.md#cancelling)."
    " It takes effect when it is submitted, not when it is executed.",
    "INSTRUCTION_GET": "One instruction: type, state, times, attempts, never its text.",
    "INSTRUCTION_LIST": "Instructions, newest first, by what is given. `after` takes the last `seq`"
    " seen.",
    "USAGE_LIST": "What the ledger has, by day (UTC), user and LLM, newest first; 10 000 rows at"
    " most. A turn is counted once it was answered, an attempt when it began.",
    "USER_EXPORT": "Everything kept of a user, in pages of 500 rows at most: the user on each, then"
    " chats, messages, records, instructions as they were given, attempts. Of a user who was deleted,"
    " too.",
    "USER_ERASE": "Takes away a user with everything that the user wrote and was answered, results,"
    " events and records included; what is going on for the user ends as `cancelled`. In chats"
    " of several members an empty message, marked `erased`, keeps each place. A user who was deleted can"
    " still be erased, by the same id: [data rights](../reliability.md#data-rights).",
}

#: The method of the clients, where it is not named after the type's words in another order.
METHODS = {
    "LLM_PROVIDER_DISCOVER": "discover_llms",
    "USER_INSTRUCTION_RECORDING_LIST": "list_instruction_records",
}

#: Codes that a type ends with because of what it is; those of every type stand on top of the page.
_NOT_FOUND, _CONFLICT = "not_found", "conflict"
ERRORS: dict[str, dict[str, str]] = {
    "USER_CREATE": {_CONFLICT: "the name is taken"},
    "USER_UPDATE": {_NOT_FOUND: "no such user", _CONFLICT: "the name is taken"},
    "USER_DELETE": {_NOT_FOUND: "no such user"},
    "USER_LIST": {},
    "USER_GET": {_NOT_FOUND: "no such user"},
    "USER_INSTRUCTION_RECORDING_ENABLE": {_NOT_FOUND: "no such user"},
    "USER_INSTRUCTION_RECORDING_DISABLE": {_NOT_FOUND: "no such user"},
    "USER_INSTRUCTION_RECORDS_DELETE": {_NOT_FOUND: "no such user"},
    "USER_INSTRUCTION_RECORDING_LIST": {_NOT_FOUND: "no such user"},
    "CHAT_CREATE": {_NOT_FOUND: "no such user; `details.missing` lists them"},
    "CHAT_UPDATE": {
        _NOT_FOUND: "no such chat, user, or message in the chat",
        _CONFLICT: "nobody would be left, or the message to make active has no answer",
    },
    "CHAT_DELETE": {_NOT_FOUND: "no such chat"},
    "CHAT_LOAD": {_NOT_FOUND: "no such chat, or no such message for `before`"},
    "CHAT_LIST": {},
    "CHAT_LIST_BY_USER": {_NOT_FOUND: "no such user"},
    "CHAT_SEARCH": {_NOT_FOUND: "no such user"},
    "CHAT_EXPORT": {_NOT_FOUND: "no such chat"},
    "LLM_PROVIDER_ADD": {
        _CONFLICT: "the name is taken",
        "configuration": "there is an API key or a header, and no `LLMCHATLINKER_SECRET_KEYS`",
    },
    "LLM_PROVIDER_UPDATE": {
        _NOT_FOUND: "no such provider",
        _CONFLICT: "the name is taken",
        "configuration": "as for LLM_PROVIDER_ADD",
    },
    "LLM_PROVIDER_DELETE": {
        _NOT_FOUND: "no such provider",
        _CONFLICT: "it has LLMs, and `force` is not given",
    },
    "LLM_PROVIDER_LIST": {},
    "LLM_PROVIDER_DISCOVER": {
        _NOT_FOUND: "no such provider",
        "provider_error": "it could not be reached, or refused",
        "provider_timeout": "it did not answer in time",
        "configuration": "the key of its API key is not among `LLMCHATLINKER_SECRET_KEYS`",
    },
    "LLM_ADD": {_NOT_FOUND: "no such provider", _CONFLICT: "the provider has an LLM of that name"},
    "LLM_UPDATE": {_NOT_FOUND: "no such LLM", _CONFLICT: "the name is taken"},
    "LLM_DELETE": {_NOT_FOUND: "no such LLM"},
    "LLM_LIST": {},
    "LLM_LIST_BY_PROVIDER": {_NOT_FOUND: "no such provider"},
    "LLM_RESPONSE_GENERATE": {
        _NOT_FOUND: "no such user, chat, LLM, provider or message",
        "not_a_member": "the user is not in the chat",
        "chat_busy": "the chat is generating, and the turn policy is `reject`",
        "provider_error": "after all retries and fallbacks",
        "provider_timeout": "the same",
        "in_doubt": "a worker died in the call, and nothing of the answer was stored",
        "configuration": "the key of the API key is not among `LLMCHATLINKER_SECRET_KEYS`",
    },
    "LLM_RESPONSE_REGENERATE": {
        _NOT_FOUND: "no such message, user or LLM; or the question was erased",
        "not_a_member": "the user is not in the chat",
        "chat_busy": "as for LLM_RESPONSE_GENERATE",
        "provider_error": "after all retries",
        "provider_timeout": "the same",
        "in_doubt": "as for LLM_RESPONSE_GENERATE",
        "configuration": "as for LLM_RESPONSE_GENERATE",
    },
    "LLM_RESPONSE_CANCEL": {_NOT_FOUND: "no such instruction"},
    "INSTRUCTION_GET": {_NOT_FOUND: "no such instruction"},
    "INSTRUCTION_LIST": {},
    "USAGE_LIST": {},
    "USER_EXPORT": {_NOT_FOUND: "no such user"},
    "USER_ERASE": {_NOT_FOUND: "no such user"},
}

#: What a field of an instruction's data is. ``TYPE.field`` goes before ``field``.
FIELDS = {
    "active_message_id": "the answer that the active branch is to end with, or a question, for its"
    " newest answer",
    "add_users": "new members, by id or name",
    "after": "the last id seen: the page behind it",
    "INSTRUCTION_LIST.after": "the last `seq` seen",
    "CHAT_EXPORT.after": "`next` of the page before",
    "USER_EXPORT.after": "`next` of the page before",
    "api_endpoint": "a base (`https://…/v1`) or the full address; without user or password",
    "api_key": "printable ASCII without spaces, 2000 characters at most; it is encrypted",
    "LLM_PROVIDER_UPDATE.api_key": "as in LLM_PROVIDER_ADD; an empty text takes it away",
    "before": "a message's id: the messages before it",
    "branch": "the active branch only, or all of them",
    "chat_id": "",
    "display_name": "how the user is to be called",
    "fallbacks": "LLMs to go on with where this one fails, in order: ids, or [objects](#a-fallback)",
    "force": "delete its LLMs, too",
    "from": "moment, inclusive, in UTC where it has no offset",
    "to": "moment, exclusive",
    "instruction_id": "",
    "kind": "the API that it speaks",
    "limit": "how many at most",
    "llm_id": "",
    "LLM_RESPONSE_GENERATE.llm_id": "the LLM; or `llm_name` with `provider_name` or `provider_id`",
    "LLM_RESPONSE_REGENERATE.llm_id": "another LLM than the one that answered before",
    "USAGE_LIST.llm_id": "of this LLM only",
    "llm_name": "the LLM's name at its provider",
    "message_id": "a question, or one of its answers",
    "name": "unique among providers",
    "parameters": "to the provider, before the LLM's and the provider's own:"
    " [parameters](../providers.md#parameters)",
    "parent_message_id": "an answer to go on from, or a question to put another one beside",
    "profile": "free text about the user; it goes to no LLM by itself",
    "provider_id": "",
    "provider_name": "",
    "LLM_ADD.provider_id": "the provider; or `provider_name`",
    "LLM_RESPONSE_GENERATE.provider_id": "beside `llm_id` it must agree with it",
    "query": "what to search for",
    "remove_users": "members to remove, by id or name",
    "settings": "",
    "LLM_PROVIDER_ADD.settings": "[settings of a provider](#settings-of-a-provider)",
    "LLM_PROVIDER_UPDATE.settings": "[settings of a provider](#settings-of-a-provider); they replace"
    " all that were there",
    "LLM_ADD.settings": "[settings of an LLM](#settings-of-an-llm)",
    "LLM_UPDATE.settings": "[settings of an LLM](#settings-of-an-llm); they replace all that were"
    " there",
    "state": "in this state only",
    "system_prompt": "goes to the LLM before everything else",
    "title": "",
    "turn_policy": "what a turn does that finds the chat busy:"
    " [policies](../turns.md#when-the-chat-is-busy)",
    "type": "of this type only",
    "user_id": "",
    "CHAT_SEARCH.user_id": "in this user's chats",
    "LLM_RESPONSE_GENERATE.user_id": "who asks: a member of the chat",
    "LLM_RESPONSE_REGENERATE.user_id": "who asks, where it is not the one who asked first",
    "USAGE_LIST.user_id": "of this user only",
    "INSTRUCTION_LIST.user_id": "that carry this user's id only",
    "user_ids": "members by id",
    "user_input": "the question: a text, or a list of parts"
    " ([text and images](../providers.md#questions-of-text-and-images))",
    "username": "unique among users",
    "USER_GET.username": "",
    "usernames": "members by name",
    # settings
    "timeouts": "[seconds](#timeouts)",
    "headers": "name → value, sent along; values are encrypted",
    "stream": "ask for the answer in pieces; on where it is left out",
    "include_usage": "ask a streamed answer for its tokens; on where it is left out",
    "max_concurrency": "calls at once; unlimited where it is left out",
    "requests_per_minute": "calls in a minute; unlimited where it is left out",
    "retries": "calls after a failed one; the process's where it is left out",
    "user_concurrency": "calls at once for one user",
    "user_requests_per_minute": "calls in a minute for one user",
    "context_window": "tokens, question and answer together",
    "price": "[of a million tokens](#price)",
    "connect": "until it is connected, TLS included",
    "first_token": "until the first piece of a streamed answer",
    "read": "between two pieces",
    "total": "for all of it",
    "prompt": "of the question's tokens",
    "completion": "of the answer's tokens",
    "cached_prompt": "of those that the provider had in its cache; as `prompt` where it is left out",
}

#: What is in result data, by the name of the object. A name in another one's field is a link.
OBJECTS: dict[str, dict[str, str]] = {
    "user": {
        "user_id": "",
        "username": "",
        "display_name": "or null",
        "profile": "or null",
        "instruction_recording": "whether its instructions leave records",
        "created_at": "",
        "updated_at": "",
    },
    "record": {
        "record_id": "what `after` takes",
        "user_id": "",
        "instruction_id": "",
        "type": "the instruction's",
        "chat_id": "or null",
        "outcome": "`success`, or the code of the error",
        "submitted_at": "",
        "finished_at": "",
    },
    "chat": {
        "chat_id": "",
        "title": "",
        "system_prompt": "or null",
        "turn_policy": "its own, or else `LLMCHATLINKER_TURN_POLICY`",
        "active_message_id": "the end of the active branch, or null",
        "users": "the members: user_id, username, display_name",
        "created_at": "",
        "updated_at": "",
        "messages": "of CHAT_LOAD and CHAT_EXPORT only: a list of messages",
    },
    "message": {
        "message_id": "",
        "parent_message_id": "the message above it, or null",
        "chat_id": "",
        "user_id": "who asked, also of an answer; null where the user is gone",
        "role": "`user` or `assistant`",
        "content": "a text, or the list of parts of a question",
        "status": "`generating`, `complete`, `cancelled`, `failed` or `in_doubt`",
        "created_at": "",
        "llm_id": "of an answer; null where the LLM is gone",
        "llm_name": "of an answer; it stays",
        "finish_reason": "of an answer: [why it ended](../providers.md#what-comes-back)",
        "usage": "of an answer: prompt_tokens, completion_tokens, total_tokens, and cost where the"
        " LLM has a price; null where the provider did not count. Of an answer that was broken off, what"
        " is missing is estimated, and `estimated` is true",
        "tool_calls": "of an answer that has any",
        "reasoning": "of an answer that has any",
        "active": "of CHAT_LOAD: whether it is on the active branch",
        "hidden": "in exports: its turn was rolled back",
        "erased": "its user was erased",
        "former_user_id": "of a user who was deleted: the id that it had",
    },
    "provider": {
        "provider_id": "",
        "name": "",
        "api_endpoint": "",
        "kind": "`openai`, `anthropic` or `ollama`",
        "has_api_key": "the key itself is never shown",
        "settings": "as they were given; of headers the names",
        "created_at": "",
        "updated_at": "",
    },
    "llm": {
        "llm_id": "",
        "provider_id": "",
        "llm_name": "",
        "settings": "as they were given; of headers the names",
        "created_at": "",
        "updated_at": "",
    },
    "instruction": {
        "instruction_id": "",
        "seq": "grows with each instruction; what `after` takes",
        "type": "",
        "state": "`submitted`, `decoded`, `executed`, `waiting`, `final` or `withdrawn`",
        "outcome": "`success`, the code of the error, or null",
        "wait_reason": "what it waits for, or null",
        "not_before": "until when it waits, or null",
        "cancel_requested": "why it is to end, or null",
        "submitted_at": "",
        "decoded_at": "or null",
        "executed_at": "or null",
        "final_at": "or null",
        "deadline_at": "",
        "attempts": "of INSTRUCTION_GET only: calls of providers",
        "data": "of USER_EXPORT only: as it was given",
        "idempotency_key": "of USER_EXPORT only, where it had one",
        "message": "of USER_EXPORT only, of an error",
        "details": "of USER_EXPORT only, of an error",
    },
    "attempt": {
        "number": "1 for the first",
        "provider_name": "",
        "llm_name": "",
        "llm_id": "or null",
        "status": "`started`, `answered`, `failed`, `cancelled` or `in_doubt`",
        "started_at": "",
        "first_delta_at": "or null",
        "finished_at": "or null",
        "prompt_tokens": "or null",
        "completion_tokens": "or null",
        "total_tokens": "or null",
        "usage_estimated": "whether some of these are our estimate, of an answer that was broken off",
        "cost": "or null",
        "error_code": "or null",
        "http_status": "or null",
    },
    "usage": {
        "day": "in UTC",
        "user_id": "or null",
        "llm_id": "or null",
        "llm_name": "",
        "turns": "instructions with an answer",
        "attempts": "calls",
        "prompt_tokens": "",
        "completion_tokens": "",
        "total_tokens": "",
        "estimated_tokens": "of these in calls whose answer was broken off, and which we estimate",
        "cost": "or null",
    },
}

#: The keys of result data that hold one object, or a list of them.
HOLDS = {
    "user": "user",
    "users": "user",
    "records": "record",
    "chat": "chat",
    "chats": "chat",
    "messages": "message",
    "llm_response": "message",
    "provider": "provider",
    "providers": "provider",
    "llm": "llm",
    "llms": "llm",
    "instruction": "instruction",
    "instructions": "instruction",
    "attempts": "attempt",
    "usage": "usage",
}

#: The others.
PLAIN = {
    "next": "what `after` takes for the page behind this one, of CHAT_LOAD what `before` takes for the"
    " older messages; null at the end",
    "deleted": "how many records",
    "erased": "how many rows of each table were deleted or emptied",
    "models": "the provider's names of its models",
}
