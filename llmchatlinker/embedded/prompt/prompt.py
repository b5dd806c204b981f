"""The prompt itself: reads lines, obeys commands, asks questions."""

from __future__ import annotations

from typing import Any

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.prompt import commands
from llmchatlinker.embedded.prompt.answering import Answering, Stream
from llmchatlinker.embedded.prompt.branches import STATUS, Tree
from llmchatlinker.embedded.prompt.places import Place, data_of, items
from llmchatlinker.embedded.prompt.reading import Lines
from llmchatlinker.embedded.prompt.screen import BOLD, DIM, Refused, Screen, in_a_line, plain
from llmchatlinker.errors import LLMChatLinkerError

#: Messages that are shown of a chat that is opened, and chats that are listed, at most.
SHOWN = 10
LISTED = 20
#: Messages among which /branches looks: the newest ones.
TREE = 1_000
TITLE = 50
NO_QUESTION = "There is no question here yet; write one."


class Prompt:
    """``client``: any that has the methods of ``LLMChatLinkerClient``. ``chat_id``: a chat to go on
    with; else it begins one, with ``title`` if there is one.
    """

    def __init__(
        self,
        screen: Screen,
        lines: Lines,
        client: LLMChatLinkerClient,
        place: Place,
        *,
        chat_id: int | None = None,
        title: str = "",
    ) -> None:
        self._screen = screen
        self._lines = lines
        self._client = client
        self._user_id = place.user_id
        self._llm_id = place.llm_id
        self._llm_name = place.llm_name
        #: None until there is something to put into it: who only looks around leaves no empty chat.
        self._chat_id: int | None = None
        self._title = title
        self._begin_with = chat_id
        self._system: str | None = None
        #: The last question that was asked or shown here: its id and its text.
        self._question: tuple[int, str] | None = None
        self._offered = ""
        self._editing: int | None = None
        self._obey = {
            "/regenerate": self._regenerate,
            "/edit": self._edit,
            "/branches": self._branches,
            "/new": self._new,
            "/chats": self._chats,
            "/model": self._model,
            "/system": self._system_prompt,
            "/help": self._help,
        }

    def run(self) -> None:
        """Until /quit or the end of the input. Raises KeyboardInterrupt only where nobody sits there."""
        self._screen.line(f"Chat with {in_a_line(self._llm_name)}. /help shows the commands.")
        if self._begin_with is not None:
            self._open(self._begin_with)
        while True:
            editing, offered = self._editing, self._offered
            self._editing, self._offered = None, ""
            try:
                line = self._lines.read(offered)
            except EOFError:
                self._screen.line()
                return
            except KeyboardInterrupt:
                if not self._lines.interactive:
                    raise
                self._screen.line()
                self._screen.line("(Ctrl-D or /quit leaves)", DIM)
                continue
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self._line(line, editing)
            except (LLMChatLinkerError, Refused) as error:
                self._screen.failure(error)
            except KeyboardInterrupt:
                if not self._lines.interactive:
                    raise
                self._screen.line("(not waiting any longer)", DIM)

    def _line(self, line: str, editing: int | None) -> None:
        command = commands.parse(line)
        if command is None:
            if line.strip():
                self._ask(line.strip(), editing)
        elif command[0] in self._obey:
            self._obey[command[0]](command[1])
        else:
            self._screen.line(commands.unknown(command[0]))

    # --- questions ------------------------------------------------------------------------------

    def _ask(self, text: str, beside: int | None = None) -> None:
        """A question; ``beside``: the one that it is another wording of."""
        if self._chat_id is None:
            self._make_chat(self._title or in_a_line(text, TITLE))
        self._answer(
            text,
            user_id=self._user_id,
            chat_id=self._chat_id,
            llm_id=self._llm_id,
            user_input=text,
            parent_message_id=beside,
        )

    def _answer(self, text: str, **asked: Any) -> None:
        """Ask, and show the answer. ``text``: the question's."""

        def begin() -> Stream:
            return self._client.stream(**asked)

        # Until it is known to be in the chat: /regenerate must not answer the question before it.
        kept = self._question if "message_id" in asked else None
        self._question = None
        answering = Answering(self._client, self._screen)
        try:
            answering.show(begin)
        finally:
            question_id = answering.answer.question_id
            self._question = kept if question_id is None else (question_id, text)
        if answering.answer.stopped and not self._lines.interactive:
            raise KeyboardInterrupt

    def _regenerate(self, argument: str) -> None:
        if self._question is None:
            self._screen.line(NO_QUESTION)
            return
        question_id, text = self._question
        self._answer(text, message_id=question_id, user_id=self._user_id, llm_id=self._llm_id)

    def _edit(self, argument: str) -> None:
        if self._question is None:
            self._screen.line(NO_QUESTION)
            return
        question_id, text = self._question
        if argument:
            self._ask(argument, question_id)
        elif self._lines.interactive:
            self._editing, self._offered = question_id, text
            self._screen.line("(edit the question; Ctrl-C leaves it as it is)", DIM)
        else:
            self._screen.line("/edit takes the new text.")

    # --- branches -------------------------------------------------------------------------------

    def _branches(self, argument: str) -> None:
        tree = Tree(self._load("all", TREE)["messages"] if self._chat_id is not None else [])
        branches = tree.branches()
        if not branches:
            self._screen.line("There is no answer yet.")
        elif not argument:
            for line in tree.lines():
                self._screen.line(line)
            self._screen.line("(/branches N goes on with answer N)", DIM)
        elif not argument.isdecimal() or not 1 <= int(argument) <= len(branches):
            self._screen.line(f"/branches takes a number from 1 to {len(branches)}.")
        else:
            assert self._chat_id is not None
            chosen = branches[int(argument) - 1]
            data_of(self._client.update_chat(self._chat_id, active_message_id=chosen.end))
            self._show_messages(2)

    # --- chats ----------------------------------------------------------------------------------

    def _new(self, argument: str) -> None:
        self._chat_id = self._question = self._system = None
        self._title = argument
        self._screen.line("(a new chat; it begins with your next question)", DIM)

    def _make_chat(self, title: str) -> None:
        made = self._client.create_chat(title, user_ids=[self._user_id], system_prompt=self._system)
        self._chat_id = data_of(made)["chat"]["chat_id"]

    def _chats(self, argument: str) -> None:
        if not argument:
            self._list_chats()
        elif argument.isdecimal():
            self._open(int(argument))
        else:
            self._screen.line("/chats takes the number of a chat.")

    def _list_chats(self) -> None:
        chats = list(items(self._client, "chats", "CHAT_LIST_BY_USER", user_id=self._user_id))
        if len(chats) > LISTED:
            self._screen.line(f"({len(chats) - LISTED} older ones)", DIM)
        for chat in chats[-LISTED:]:
            mark = "*" if chat["chat_id"] == self._chat_id else " "
            when = chat["created_at"][:16].replace("T", " ")
            self._screen.line(f"{mark} {chat['chat_id']:>5}  {when}  {in_a_line(chat['title'])}")
        self._screen.line("(/chats N goes on with chat N)" if chats else "No chats yet.", DIM)

    def _open(self, chat_id: int) -> None:
        chat = data_of(self._client.get_chat(chat_id, limit=1))["chat"]
        if self._user_id not in [user["user_id"] for user in chat["users"]]:
            self._screen.line(f"Chat {chat_id} is not one of yours. /chats lists them.")
            return
        self._chat_id, self._question = chat_id, None
        self._screen.line(in_a_line(chat["title"]), BOLD)
        self._show_messages(SHOWN)

    def _show_messages(self, count: int) -> None:
        """The end of the active branch."""
        for message in self._load("active", count)["messages"]:
            asked = message["role"] == "user"
            self._screen.piece("you> " if asked else f"{in_a_line(message['llm_name'])}> ", BOLD)
            content = plain(message["content"])
            self._screen.piece(content)
            status = STATUS.get(message["status"])
            self._screen.piece(f" ({status})" if status else "", DIM)
            self._screen.end_line()
            if asked:
                self._question = (message["message_id"], content)

    def _load(self, branch: str, limit: int) -> dict[str, Any]:
        assert self._chat_id is not None
        chat: dict[str, Any]
        chat = data_of(self._client.get_chat(self._chat_id, branch=branch, limit=limit))["chat"]
        return chat

    def _system_prompt(self, argument: str) -> None:
        if argument:
            if self._chat_id is not None:
                data_of(self._client.update_chat(self._chat_id, system_prompt=argument))
            self._system = argument
            self._screen.line("(from the next question on)", DIM)
            return
        prompt = self._system
        if self._chat_id is not None:
            prompt = self._load("active", 1)["system_prompt"]
        self._screen.line(prompt or "This chat has no system prompt; /system TEXT sets one.")

    # --- LLMs -----------------------------------------------------------------------------------

    def _model(self, argument: str) -> None:
        providers = {
            provider["provider_id"]: provider["name"]
            for provider in items(self._client, "providers", "LLM_PROVIDER_LIST")
        }
        llms = {llm["llm_id"]: llm for llm in items(self._client, "llms", "LLM_LIST")}
        if not argument:
            for llm_id, llm in llms.items():
                mark = "*" if llm_id == self._llm_id else " "
                where = providers.get(llm["provider_id"], "?")
                self._screen.line(f"{mark} {llm_id:>5}  {in_a_line(llm['llm_name'])} at {where}")
            self._screen.line("(/model N takes LLM N)", DIM)
        elif not argument.isdecimal() or int(argument) not in llms:
            self._screen.line(f"There is no LLM {argument}. /model lists them.")
        else:
            self._llm_id = int(argument)
            self._llm_name = llms[self._llm_id]["llm_name"]
            self._screen.line(f"(from now on {in_a_line(self._llm_name)})", DIM)

    def _help(self, argument: str) -> None:
        self._screen.line(commands.help_text())
