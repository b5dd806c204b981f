"""The instruction set against a plain model of its rules, whatever is done in whatever order.

``LLMCHATLINKER_TEST_EXAMPLES=500`` makes a longer search than the usual one, and another one each
time, unless ``LLMCHATLINKER_TEST_SEED=1`` says which one.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmchatlinker.errors import Conflict
from tests.fixtures.cycles import Cycle
from tests.fixtures.models import Chat, Message, Model, User
from tests.fixtures.scenes import Scene
from tests.servers import scripts

EXAMPLES = int(os.environ.get("LLMCHATLINKER_TEST_EXAMPLES", "0"))
SEED = os.environ.get("LLMCHATLINKER_TEST_SEED")
STEPS = 20
NOBODY = 999_999

NAMES = st.sampled_from(["ada", "bob", "cy", "ADA", "d e"])
WORDS = st.sampled_from(["apple", "pear", "plum", "apple pear", "čaj"])
POLICIES = st.sampled_from([None, "enqueue", "reject", "interrupt", "rollback"])
#: Which of what there is: an index, as far as it goes round.
ANY = st.integers(0, 50)


def pick(there: Any, number: int) -> int:
    """One of the ids, or now and then that of nobody."""
    ids = sorted(there)
    return ids[number % len(ids)] if ids and number % 17 != 16 else NOBODY


class InstructionSet(RuleBasedStateMachine):
    """Each rule runs an instruction, and says of the model what must come of it."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.cycle: Cycle = scene.cycle
        self.provider = scene.provider
        self.llm_id = scene.llm_id
        tables = "users, chats, messages, instructions, records, former_users"
        self.cycle.sql(f"TRUNCATE {tables} CASCADE")
        self.model = Model()
        self.keys: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.turns: list[tuple[str, int]] = []

    # --- running instructions ---------------------------------------------------------------------

    def run(self, type_name: str, carries: tuple[int, ...] = (), **data: Any) -> Any:
        """The envelope; ``carries``: the users whose id the instruction has."""
        data = {name: value for name, value in data.items() if value is not None}
        envelope = self.cycle.run(type_name, **data)
        self.note(envelope, carries)
        return envelope

    def note(self, envelope: Any, carries: tuple[int, ...]) -> None:
        for user_id in carries:
            user = self.model.users.get(user_id)
            if user is not None:
                known = envelope["instruction_id"]
                (user.recorded if user.recording else user.unrecorded).add(known)

    def expect(self, envelope: Any, wrong: set[str]) -> bool:
        """Whether it succeeded; it must, unless something was wrong: then with one of these codes."""
        code = envelope.get("error", {}).get("code")
        assert (code in wrong) if wrong else (code is None), envelope
        return not wrong

    # --- users ------------------------------------------------------------------------------------

    @initialize(policies=st.tuples(POLICIES, POLICIES))
    def begin(self, policies: tuple[str | None, str | None]) -> None:
        """Two users, a shared chat with two turns, one of ada's own: there is something to act on."""
        for name in ("ada", "bob"):
            self.create_user(name, None)
        self.create_chat("apple", [0, 1], policies[0], False)
        self.create_chat("pear", [0], policies[1], True)
        for _ in range(2):
            self.generate(1, 0, "apple", None, False)

    @rule(name=NAMES, profile=st.none() | WORDS)
    def create_user(self, name: str, profile: str | None) -> None:
        envelope = self.run("USER_CREATE", username=name, profile=profile)
        taken = self.model.named(name) is not None
        if self.expect(envelope, {"conflict"} if taken else set()):
            view = envelope["data"]["user"]
            assert (view["username"], view["profile"]) == (name, profile)
            assert view["user_id"] not in self.model.users
            self.model.users[view["user_id"]] = User(name, profile)

    @rule(of=ANY, name=st.none() | NAMES, profile=st.none() | WORDS)
    def update_user(self, of: int, name: str | None, profile: str | None) -> None:
        user_id = pick(self.model.users, of)
        envelope = self.run(
            "USER_UPDATE", (user_id,), user_id=user_id, username=name, profile=profile
        )
        wrong = set()
        if user_id not in self.model.users:
            wrong = {"not_found"}
        elif name is not None and self.model.named(name) not in (None, user_id):
            wrong = {"conflict"}
        if self.expect(envelope, wrong):
            user = self.model.users[user_id]
            user.username, user.profile = name or user.username, profile or user.profile
            self.is_user(user_id, envelope["data"]["user"])

    @rule(name=NAMES, of=ANY)
    def get_user(self, name: str, of: int) -> None:
        there = self.model.named(name)
        envelope = self.run("USER_GET", username=name)
        if self.expect(envelope, {"not_found"} if there is None else set()):
            assert there is not None
            self.is_user(there, envelope["data"]["user"])
        user_id = pick(self.model.users, of)
        envelope = self.run("USER_GET", (user_id,), user_id=user_id)
        if self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            self.is_user(user_id, envelope["data"]["user"])

    def is_user(self, user_id: int, view: Any) -> None:
        user = self.model.users[user_id]
        assert view["user_id"] == user_id
        assert (view["username"], view["profile"]) == (user.username, user.profile)
        assert view["instruction_recording"] == user.recording

    @rule(limit=st.integers(1, 3))
    def list_users(self, limit: int) -> None:
        found, after = [], None
        while True:
            page = self.cycle.do("USER_LIST", limit=limit, **({"after": after} if after else {}))
            assert len(page["users"]) <= limit
            found += [view["user_id"] for view in page["users"]]
            after = page["next"]
            if after is None:
                break
        assert found == sorted(self.model.users)

    @rule(of=ANY, how=st.sampled_from(["USER_DELETE", "USER_ERASE"]))
    def remove_user(self, of: int, how: str) -> None:
        user_id = pick(self.model.users, of)
        envelope = self.run(how, user_id=user_id)
        if self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            if how == "USER_ERASE":
                self.model.erase(user_id)
                # Its instructions are forgotten, with their keys.
                for key, (_, given) in list(self.keys.items()):
                    if given["data"].get("user", {}).get("user_id") == user_id:
                        del self.keys[key]
            else:
                self.model.remove(user_id)

    @rule(of=ANY, on=st.booleans())
    def set_recording(self, of: int, on: bool) -> None:
        user_id = pick(self.model.users, of)
        word = "ENABLE" if on else "DISABLE"
        envelope = self.run(f"USER_INSTRUCTION_RECORDING_{word}", user_id=user_id)
        if self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            self.model.users[user_id].recording = on
            self.is_user(user_id, envelope["data"]["user"])

    @rule(of=ANY, away=st.booleans())
    def look_at_records(self, of: int, away: bool) -> None:
        user_id = pick(self.model.users, of)
        envelope = self.run("USER_INSTRUCTION_RECORDING_LIST", user_id=user_id)
        if not self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            return
        user = self.model.users[user_id]
        records = envelope["data"]["records"]
        known = {record["instruction_id"] for record in records}
        assert user.recorded <= known
        assert not user.unrecorded & known
        if away:
            # This one, and the one above, may have left a record of themselves as well.
            deleted = self.cycle.do("USER_INSTRUCTION_RECORDS_DELETE", user_id=user_id)["deleted"]
            assert len(records) <= deleted <= len(records) + 1
            user.unrecorded |= user.recorded
            user.recorded.clear()

    # --- chats ------------------------------------------------------------------------------------

    @rule(
        title=WORDS, of=st.lists(ANY, min_size=1, max_size=3), policy=POLICIES, named=st.booleans()
    )
    def create_chat(self, title: str, of: list[int], policy: str | None, named: bool) -> None:
        ids = [pick(self.model.users, number) for number in of]
        there = all(user_id in self.model.users for user_id in ids)
        who: dict[str, Any] = {"user_ids": ids}
        if named and there:
            who = {"usernames": [self.model.users[user_id].username for user_id in ids]}
        carries = () if named else tuple(ids)
        envelope = self.run("CHAT_CREATE", carries, title=title, turn_policy=policy, **who)
        if self.expect(envelope, set() if there else {"not_found"}):
            view = envelope["data"]["chat"]
            assert view["chat_id"] not in self.model.chats
            self.model.chats[view["chat_id"]] = Chat(title, set(ids), policy or "enqueue")
            self.is_chat(view["chat_id"], view)

    @rule(
        of=ANY,
        title=st.none() | WORDS,
        prompt=st.none() | WORDS,
        policy=POLICIES,
        add=st.lists(ANY, max_size=2),
        remove=st.lists(ANY, max_size=2),
    )
    def update_chat(
        self,
        of: int,
        title: str | None,
        prompt: str | None,
        policy: str | None,
        add: list[int],
        remove: list[int],
    ) -> None:
        chat_id = pick(self.model.chats, of)
        chat = self.model.chats.get(chat_id)
        added = {pick(self.model.users, number) for number in add}
        removed = {pick(self.model.users, number) for number in remove}
        envelope = self.run(
            "CHAT_UPDATE",
            chat_id=chat_id,
            title=title,
            system_prompt=prompt,
            turn_policy=policy,
            add_users=sorted(added) or None,
            remove_users=sorted(removed) or None,
        )
        wrong = set()
        if chat is None or added - self.model.users.keys():
            wrong.add("not_found")
        if chat is not None and not (chat.members | added) - removed:
            wrong.add("conflict")
        if self.expect(envelope, wrong):
            assert chat is not None
            chat.title, chat.policy = title or chat.title, policy or chat.policy
            chat.system_prompt = prompt or chat.system_prompt
            chat.members = (chat.members | added) - removed
            self.is_chat(chat_id, envelope["data"]["chat"])

    @rule(of=ANY, message=ANY)
    def switch_branch(self, of: int, message: int) -> None:
        chat_id, message_id = pick(self.model.chats, of), self.pick_message(message)
        envelope = self.run("CHAT_UPDATE", chat_id=chat_id, active_message_id=message_id)
        chat = self.model.chats.get(chat_id)
        there = chat is not None and message_id in chat.messages
        if self.expect(envelope, set() if there else {"not_found"}):
            assert chat is not None
            if chat.messages[message_id].role == "user":
                newest = chat.newest_answer(message_id)
                assert newest is not None
                message_id = newest
            chat.active = message_id
            self.look(chat_id)

    @rule(of=ANY)
    def delete_chat(self, of: int) -> None:
        chat_id = pick(self.model.chats, of)
        envelope = self.run("CHAT_DELETE", chat_id=chat_id)
        if self.expect(envelope, set() if chat_id in self.model.chats else {"not_found"}):
            del self.model.chats[chat_id]

    @rule(of=ANY)
    def list_chats(self, of: int) -> None:
        views = self.cycle.do("CHAT_LIST")["chats"]
        assert [view["chat_id"] for view in views] == sorted(self.model.chats)
        for view in views:
            self.is_chat(view["chat_id"], view)
        user_id = pick(self.model.users, of)
        envelope = self.run("CHAT_LIST_BY_USER", (user_id,), user_id=user_id)
        if self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            found = [view["chat_id"] for view in envelope["data"]["chats"]]
            assert found == self.model.chats_of(user_id)

    @rule(of=ANY, word=WORDS)
    def search(self, of: int, word: str) -> None:
        user_id = pick(self.model.users, of)
        envelope = self.run("CHAT_SEARCH", (user_id,), user_id=user_id, query=word)
        if self.expect(envelope, set() if user_id in self.model.users else {"not_found"}):
            words = set(word.split())
            wanted = {
                number
                for chat_id in self.model.chats_of(user_id)
                for number, message in self.model.chats[chat_id].messages.items()
                if words <= set(message.content.replace(":", "").split())
            }
            found = envelope["data"]["messages"]
            assert {view["message_id"] for view in found} == wanted

    def is_chat(self, chat_id: int, view: Any) -> None:
        chat = self.model.chats[chat_id]
        assert view["chat_id"] == chat_id
        assert (view["title"], view["turn_policy"]) == (chat.title, chat.policy)
        assert view["system_prompt"] == chat.system_prompt
        assert [user["user_id"] for user in view["users"]] == sorted(chat.members)
        assert view["active_message_id"] == chat.active

    def look(self, chat_id: int) -> None:
        """A chat as it is loaded, with all its branches, against the model's."""
        chat = self.model.chats[chat_id]
        active = chat.path(chat.active)
        everything = self.cycle.do("CHAT_LOAD", chat_id=chat_id, branch="all", limit=1000)["chat"]
        self.is_chat(chat_id, everything)
        assert {view["message_id"] for view in everything["messages"]} == set(chat.messages)
        for view in everything["messages"]:
            message = chat.messages[view["message_id"]]
            assert view["parent_message_id"] == message.parent
            assert (view["role"], view["content"]) == (message.role, message.content)
            assert (view["user_id"], view["status"]) == (message.user, message.status)
            assert view.get("erased", False) == message.erased
            assert view["active"] == (view["message_id"] in active)

    @precondition(lambda self: self.model.chats)
    @rule(of=ANY, limit=st.integers(1, 4))
    def read_upwards(self, of: int, limit: int) -> None:
        """The active branch in pages, from its end to its top."""
        chat_id = sorted(self.model.chats)[of % len(self.model.chats)]
        shown: list[int] = []
        before: int | None = None
        while True:
            above = {} if before is None else {"before": before}
            page = self.cycle.do("CHAT_LOAD", chat_id=chat_id, limit=limit, **above)
            shown = [view["message_id"] for view in page["chat"]["messages"]] + shown
            before = page["next"]
            if before is None:
                break
        chat = self.model.chats[chat_id]
        assert shown == chat.path(chat.active)

    # --- turns ------------------------------------------------------------------------------------

    def pick_message(self, number: int) -> int:
        return pick((m for chat in self.model.chats.values() for m in chat.messages), number)

    @rule(who=ANY, where=ANY, text=WORDS, below=st.none() | ANY, fails=st.booleans())
    def generate(self, who: int, where: int, text: str, below: int | None, fails: bool) -> None:
        chat_id = pick(self.model.chats, where)
        chat = self.model.chats.get(chat_id)
        # Mostly a member: what others get is soon seen.
        user_id = pick(self.model.users if chat is None or who % 3 == 0 else chat.members, who)
        parent = None if below is None else self.pick_message(below)
        wrong = set()
        if user_id not in self.model.users or chat is None:
            wrong.add("not_found")
        if chat is not None and user_id not in chat.members:
            wrong.add("not_a_member")
        if parent is not None and (chat is None or parent not in chat.messages):
            wrong |= {"not_found", "invalid_data"}
        if fails and not wrong:
            self.provider.script(scripts.error(400))
        made = len(self.provider.calls)
        data = {"user_id": user_id, "chat_id": chat_id, "llm_id": self.llm_id, "user_input": text}
        envelope = self.run("LLM_RESPONSE_GENERATE", (user_id,), **data, parent_message_id=parent)
        if wrong:
            self.expect(envelope, wrong)
            assert len(self.provider.calls) == made
            return
        assert chat is not None
        self.expect(envelope, {"provider_error"} if fails else set())
        end = chat.active if parent is None else self.parent_of_edit(chat, parent)
        self.answered(chat, envelope, user_id, text, end, fails)
        self.turns.append((envelope["instruction_id"], chat_id))
        self.look(chat_id)

    def parent_of_edit(self, chat: Chat, message_id: int) -> int | None:
        """Of a question: where that one stands; of an answer: below it."""
        message = chat.messages[message_id]
        return message.parent if message.role == "user" else message_id

    def answered(
        self, chat: Chat, envelope: Any, user_id: int, text: str, end: int | None, fails: bool
    ) -> None:
        view = envelope["data"]["llm_response"]
        told = [(m["role"], m["content"]) for m in self.provider.calls[-1].body["messages"]]
        assert told == self.told(chat, end, text)
        question, answer = view["parent_message_id"], view["message_id"]
        assert question not in chat.messages and answer not in chat.messages
        content = "" if fails else f"You said: {text}"
        chat.messages[question] = Message(end, "user", text, user_id)
        chat.messages[answer] = Message(
            question, "assistant", content, user_id, "failed" if fails else "complete"
        )
        chat.active = answer

    def told(self, chat: Chat, end: int | None, text: str) -> list[tuple[str, str]]:
        """Turns of which nothing came, or whose question was erased, are told to nobody."""
        system = [] if chat.system_prompt is None else [("system", chat.system_prompt)]
        path = chat.path(end)
        sent: list[tuple[str, str]] = []
        for number in path:
            message = chat.messages[number]
            turn = [message, *(chat.messages[n] for n in path if chat.messages[n].parent == number)]
            if message.role == "assistant":
                assert message.parent is not None
                turn = [chat.messages[message.parent], message]
            if all(one.content for one in turn) and len(turn) == 2:
                sent.append((message.role, message.content))
        return [*system, *sent, ("user", text)]

    @rule(of=ANY, text=WORDS)
    def regenerate(self, of: int, text: str) -> None:
        message_id = self.pick_message(of)
        chat_id = next((n for n, c in self.model.chats.items() if message_id in c.messages), None)
        if chat_id is None:
            self.expect(self.run("LLM_RESPONSE_REGENERATE", message_id=message_id), {"not_found"})
            return
        chat = self.model.chats[chat_id]
        message = chat.messages[message_id]
        question = message_id if message.role == "user" else message.parent
        assert question is not None
        asked = chat.messages[question]
        made = len(self.provider.calls)
        # A question of somebody who was deleted is nobody's, and who is still in the chat may ask anew.
        gone = asked.user is not None and asked.user not in chat.members
        if gone or asked.erased:
            envelope = self.run(
                "LLM_RESPONSE_REGENERATE", message_id=message_id, llm_id=self.llm_id
            )
            assert envelope["status"] == "error", envelope
            assert len(self.provider.calls) == made
            return
        carries = () if asked.user is None else (asked.user,)
        self.provider.script(scripts.answer(text))
        envelope = self.run(
            "LLM_RESPONSE_REGENERATE", carries, message_id=message_id, llm_id=self.llm_id
        )
        self.expect(envelope, set())
        view = envelope["data"]["llm_response"]
        assert view["parent_message_id"] == question
        told = [(m["role"], m["content"]) for m in self.provider.calls[-1].body["messages"]]
        assert told == self.told(chat, asked.parent, asked.content)
        chat.messages[view["message_id"]] = Message(question, "assistant", text, asked.user)
        chat.active = view["message_id"]
        self.look(chat_id)

    def somebody(self, number: int) -> tuple[int, int] | None:
        """A chat and one of its members."""
        if not self.model.chats:
            return None
        chat_id = sorted(self.model.chats)[number % len(self.model.chats)]
        members = sorted(self.model.chats[chat_id].members)
        return chat_id, members[number % len(members)]

    @precondition(lambda self: self.model.chats)
    @rule(where=ANY, policy=POLICIES, words=st.tuples(WORDS, WORDS))
    def two_turns(self, where: int, policy: str | None, words: tuple[str, str]) -> None:
        """A turn that finds the chat busy does what its policy says, or the chat's."""
        found = self.somebody(where)
        assert found is not None
        chat_id, user_id = found
        chat = self.model.chats[chat_id]
        data = {"user_id": user_id, "chat_id": chat_id, "llm_id": self.llm_id}
        end = chat.active
        first = self.cycle.submit("LLM_RESPONSE_GENERATE", **data, user_input=words[0])
        assert self.cycle.decode(first)
        more = {} if policy is None else {"turn_policy": policy}
        second = self.cycle.submit("LLM_RESPONSE_GENERATE", **data, user_input=words[1], **more)
        self.cycle.finish(second)
        self.cycle.finish(first, "execute")
        self.cycle.deliver("llm.generate")
        envelopes = [self.cycle.envelope(first), self.cycle.envelope(second)]
        for envelope in envelopes:
            self.note(envelope, (user_id,))
        kept = {"enqueue": (True, True), "reject": (True, False)}.get(
            policy or chat.policy, (False, True)
        )
        codes = (
            set() if kept[0] else {"cancelled"},
            set() if kept[1] else {"chat_busy"},
        )
        for envelope, wrong in zip(envelopes, codes, strict=True):
            self.expect(envelope, wrong)
        for envelope, text, goes in zip(envelopes, words, kept, strict=True):
            if goes:
                view = envelope["data"]["llm_response"]
                question, answer = view["parent_message_id"], view["message_id"]
                chat.messages[question] = Message(end, "user", text, user_id)
                chat.messages[answer] = Message(question, "assistant", f"You said: {text}", user_id)
                end = chat.active = answer
        self.look(chat_id)

    @precondition(lambda self: self.model.chats)
    @rule(where=ANY, text=WORDS)
    def cancel_a_turn_before_it_starts(self, where: int, text: str) -> None:
        found = self.somebody(where)
        assert found is not None
        chat_id, user_id = found
        made = len(self.provider.calls)
        data = {"user_id": user_id, "chat_id": chat_id, "llm_id": self.llm_id, "user_input": text}
        turn = self.cycle.submit("LLM_RESPONSE_GENERATE", **data)
        self.expect(self.run("LLM_RESPONSE_CANCEL", instruction_id=str(turn)), set())
        self.cycle.finish(turn)
        envelope = self.cycle.envelope(turn)
        self.expect(envelope, {"cancelled"})
        self.note(envelope, (user_id,))
        assert len(self.provider.calls) == made
        self.look(chat_id)

    @precondition(lambda self: self.turns)
    @rule(of=ANY)
    def cancel_a_turn_that_is_over(self, of: int) -> None:
        nobody = self.run("LLM_RESPONSE_CANCEL", instruction_id=str(uuid4()))
        self.expect(nobody, {"not_found"})
        known, chat_id = self.turns[of % len(self.turns)]
        if chat_id not in self.model.chats:
            return
        self.expect(self.run("LLM_RESPONSE_CANCEL", instruction_id=known), set())
        self.look(chat_id)

    # --- submitting -------------------------------------------------------------------------------

    @rule(key=st.sampled_from(["k1", "k2"]), name=NAMES)
    def submit_with_a_key(self, key: str, name: str) -> None:
        data = {"username": name}
        if key not in self.keys:
            envelope = self.submitted(key, data)
            taken = self.model.named(name) is not None
            if self.expect(envelope, {"conflict"} if taken else set()):
                self.model.users[envelope["data"]["user"]["user_id"]] = User(name)
            self.keys[key] = (data, envelope)
        elif self.keys[key][0] == data:
            again = self.cycle.submit("USER_CREATE", idempotency_key=key, **data)
            assert str(again) == self.keys[key][1]["instruction_id"]
        else:
            with pytest.raises(Conflict):
                self.cycle.submit("USER_CREATE", idempotency_key=key, **data)

    def submitted(self, key: str, data: dict[str, Any]) -> Any:
        first: UUID = self.cycle.submit("USER_CREATE", idempotency_key=key, **data)
        assert self.cycle.submit("USER_CREATE", idempotency_key=key, **data) == first
        assert self.cycle.finish(first)
        return self.cycle.envelope(first)

    def teardown(self) -> None:
        """Whatever was done, all chats are as the model has them."""
        for chat_id in self.model.chats:
            self.look(chat_id)


def begun(scene: Scene) -> InstructionSet:
    """With what every search begins with: ada and bob in a chat where bob has two turns."""
    machine = InstructionSet(scene)
    machine.begin((None, None))
    return machine


# --- what longer searches have found ------------------------------------------------------------------


def test_the_key_of_a_user_who_was_erased_is_free(scene: Scene) -> None:
    machine = begun(scene)
    machine.submit_with_a_key("k1", "cy")
    machine.remove_user(2, "USER_ERASE")
    machine.submit_with_a_key("k1", "d e")
    machine.teardown()


def test_a_turn_goes_below_one_that_failed(scene: Scene) -> None:
    machine = begun(scene)
    machine.generate(0, 0, "plum", None, True)
    machine.generate(0, 0, "pear", None, False)
    machine.teardown()


def test_what_was_answered_to_an_erased_user_is_erased(scene: Scene) -> None:
    machine = begun(scene)
    machine.remove_user(1, "USER_ERASE")
    machine.teardown()


def test_the_instruction_set_does_what_a_plain_model_of_its_rules_does(scene: Scene) -> None:
    search = settings(
        max_examples=EXAMPLES or 8,
        derandomize=not EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def machine() -> InstructionSet:
        return InstructionSet(scene)

    begin = machine if SEED is None else seed(int(SEED))(machine)
    run_state_machine_as_test(begin, settings=search)
