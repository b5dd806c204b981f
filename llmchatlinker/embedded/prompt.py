"""The chat prompt of `make run`: a person, a chat in the lasting database, and an LLM."""

from __future__ import annotations

import contextlib
import getpass
from typing import Any

from rich.console import Console
from rich.markup import escape

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.quickstart import Target
from llmchatlinker.envelope import Envelope

HELP = """\
/new [title]   start a new chat            /chats        list your chats
/open ID       go on with a chat           /regenerate   answer the last question anew
/help          this                        /quit         leave (or Ctrl-D)"""


class Prompt:
    """Reads lines, sends turns, prints answers."""

    def __init__(self, console: Console, target: Target) -> None:
        self._console = console
        self._client = LLMChatLinkerClient()
        self._target = target
        self._user_id = self._ensure_user()
        self._llm_id = self._ensure_llm()
        self._chat_id = 0
        self._last_message: int | None = None

    def run(self) -> None:
        """Until /quit or Ctrl-D. Ctrl-C takes back the line, or stops waiting for an answer."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing for input())
        self._new_chat("Chat")
        self._console.print(f"Chat with {escape(self._target.llm_name)}. /help shows the commands.")
        while True:
            try:
                line = input("\nyou> ").strip()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print("\n[dim](/quit or Ctrl-D leaves)[/dim]")
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                self._obey(line)
            except KeyboardInterrupt:
                self._console.print(
                    "\n[dim]not waiting any longer; the answer still comes into the chat[/dim]"
                )

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        match command:
            case "":
                return
            case "/help":
                self._console.print(HELP, markup=False)
            case "/new":
                self._new_chat(rest.strip() or "Chat")
            case "/chats":
                self._list_chats()
            case "/open":
                self._open(rest.strip())
            case "/regenerate":
                self._regenerate()
            case _ if command.startswith("/"):
                self._console.print(
                    f"There is no command {command}; /help shows them.", markup=False
                )
            case _:
                self._ask(line)

    def _ask(self, text: str) -> None:
        with self._console.status("thinking"):
            envelope = self._client.generate_llm_response(
                self._user_id, self._chat_id, llm_id=self._llm_id, user_input=text
            )
        self._show(envelope)

    def _regenerate(self) -> None:
        if self._last_message is None:
            self._console.print("There is nothing to answer anew yet.")
            return
        with self._console.status("thinking"):
            envelope = self._client.regenerate_llm_response(self._last_message)
        self._show(envelope)

    def _show(self, envelope: Envelope) -> None:
        if envelope["status"] == "error":
            self._console.print(f"[red]{escape(envelope['message'])}[/red]")
            return
        response = envelope["data"]["llm_response"]
        self._last_message = response["message_id"]
        self._console.print(f"\n[bold]{escape(self._target.llm_name)}>[/bold] ", end="")
        self._console.print(response["content"], markup=False, highlight=False)

    def _new_chat(self, title: str) -> None:
        envelope = self._client.create_chat(title, user_ids=[self._user_id])
        self._chat_id = self._data(envelope)["chat"]["chat_id"]
        self._last_message = None

    def _list_chats(self) -> None:
        for envelope in self._client.pages("CHAT_LIST_BY_USER", user_id=self._user_id):
            for chat in self._data(envelope)["chats"]:
                here = "*" if chat["chat_id"] == self._chat_id else " "
                self._console.print(
                    f"{here} {chat['chat_id']:>5}  {chat['created_at'][:16]}  {chat['title']}",
                    markup=False,
                    highlight=False,
                )

    def _open(self, text: str) -> None:
        if not text.isdigit():
            self._console.print("/open takes the number of a chat; /chats lists them.")
            return
        envelope = self._client.get_chat(int(text), limit=20)
        if envelope["status"] == "error":
            self._console.print(f"[red]{escape(envelope['message'])}[/red]")
            return
        chat = envelope["data"]["chat"]
        if self._user_id not in [user["user_id"] for user in chat["users"]]:
            self._console.print("That is not a chat of yours.")
            return
        self._chat_id, self._last_message = chat["chat_id"], None
        for message in chat["messages"]:
            who = "you" if message["role"] == "user" else message["llm_name"]
            self._console.print(f"{who}> {message['content']}", markup=False, highlight=False)
            self._last_message = message["message_id"]

    def _ensure_user(self) -> int:
        name = getpass.getuser()
        envelope = self._client.get_user(username=name)
        if envelope["status"] == "error":
            envelope = self._client.create_user(name)
        user_id: int = self._data(envelope)["user"]["user_id"]
        return user_id

    def _ensure_llm(self) -> int:
        """The target's provider and LLM; the local server has another port at each start."""
        target = self._target
        provider_id: int | None = None
        for envelope in self._client.pages("LLM_PROVIDER_LIST"):
            for provider in self._data(envelope)["providers"]:
                if provider["name"] == target.provider_name:
                    provider_id = provider["provider_id"]
        where = {"api_endpoint": target.api_endpoint, "api_key": target.api_key}
        if provider_id is None:
            added = self._client.run("LLM_PROVIDER_ADD", name=target.provider_name, **where)
            provider_id = self._data(added)["provider"]["provider_id"]
        else:
            self._data(self._client.run("LLM_PROVIDER_UPDATE", provider_id=provider_id, **where))
        for envelope in self._client.pages("LLM_LIST_BY_PROVIDER", provider_id=provider_id):
            for llm in self._data(envelope)["llms"]:
                if llm["llm_name"] == target.llm_name:
                    found: int = llm["llm_id"]
                    return found
        added = self._client.add_llm(provider_id, target.llm_name)
        made: int = self._data(added)["llm"]["llm_id"]
        return made

    @staticmethod
    def _data(envelope: Envelope) -> dict[str, Any]:
        if envelope["status"] == "error":
            raise RuntimeError(envelope["message"])
        return envelope["data"]
