"""The disk of the embedded system is full, or has become read-only, while a client is at work.

The client is told so in one sentence, and so is who started the system; nothing that was accepted is
lost; and once the disk is mended, ``llmchatlinker up`` goes on from where it was.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg2

from benchmarks.sides import ROOT
from faults.checker import Verdict
from faults.disk import Disk
from faults.results import Result
from faults.world import Round
from llmchatlinker.embedded import binaries
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import PREFIX

COMMAND = [sys.executable, "-m", "llmchatlinker"]
PATIENCE = 400.0  # seconds
#: Seconds: what was accepted waits until the system is up again.
DEADLINE = 4 * PATIENCE
STOP_SECONDS = 60.0
SETTLE = 15.0  # seconds in which PostgreSQL ends, if it does
TRIES = 400

#: What finds a corrupt database.
CHECKS = (
    ("pg_amcheck", "--install-missing", "--heapallindexed", "--all"),
    ("pg_dump", "--file", os.devnull),
)

#: Submits until the servers refuse, and then says how; or asks what became of instructions (nothing,
#: where there is no such one).
CLIENT = """
import json, sys
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import LLMChatLinkerError
client, order = LLMChatLinkerClient(), json.loads(sys.stdin.readline())
for title in order.get("titles", []):
    try:
        known = client.submit("CHAT_CREATE", title=title, user_ids=[1], system_prompt="x" * 9000).id
    except LLMChatLinkerError as error:
        known = error.details.get("instruction_id")
        print(json.dumps({"title": title, "id": known, "error": str(error), "code": error.code}))
        break
    print(json.dumps({"title": title, "id": known}), flush=True)
for known in order.get("ids", []):
    result = client.result(known)
    there = result.backend.task_result_exists(known)
    print(json.dumps(result.get(timeout=300) if there else None), flush=True)
for type_name, data in order.get("do", []):
    print(json.dumps(client.run(type_name, **data)), flush=True)
"""


class Embedded:
    """``llmchatlinker up`` with its data on a disk."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LLMCHATLINKER_DATA_DIR": str(disk.path / "data"),
        }
        self.process = ManagedProcess(
            "up", [*COMMAND, "up", "--no-model"], self._environment, folder / "up.log", cwd=folder
        )
        self._settings: dict[str, str] = {}
        self._folder = folder

    def up(self) -> None:
        """Start it; returns once it is."""
        self.process.start()
        wait_until(lambda: "Up. In another" in self.process.log_text(), PATIENCE, self.process)
        told = subprocess.run(
            [*COMMAND, "env", "--json"], env=self._environment, capture_output=True, check=True
        )
        self._settings = json.loads(told.stdout)

    def ended(self, seconds: float) -> int | None:
        """Its exit code, if it ends within so long, or is about to; None when it goes on."""
        code = self.process.wait(seconds)
        if code is None and "stopping everything" in self.process.log_text():
            code = self.process.wait(PATIENCE)
        return code

    def corrupt(self) -> str:
        """What is wrong with any table or index; empty when nothing is.

        Every page is read, which verifies its checksum, every row against its table's rules, and every
        index against its table.
        """
        url = urlsplit(self._settings[PREFIX + "DATABASE_URL"])
        address = {
            "PGHOST": url.hostname or "",
            "PGPORT": str(url.port),
            "PGUSER": unquote(url.username or ""),
            "PGPASSWORD": unquote(url.password or ""),
            "PGDATABASE": url.path.removeprefix("/"),
        }
        for command in CHECKS:
            done = subprocess.run(
                [str(binaries.installed() / "bin" / command[0]), *command[1:]],
                env=self._environment | address,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
            )
            if done.returncode != 0:
                return f"{command[0]}: {done.stdout[-1000:].decode(errors='replace')}"
        return ""

    def connection(self) -> Any:
        """One to PostgreSQL, which stays when no new one can be had."""
        return psycopg2.connect(self._settings[PREFIX + "DATABASE_URL"].replace("+psycopg2", ""))

    def client(self, **order: Any) -> list[Any]:
        """What a client process says to an order."""
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            env=self._environment | self._settings | {PREFIX + "DEADLINE": str(DEADLINE)},
            cwd=self._folder,
            input=json.dumps(order) + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"a client ended with {done.returncode}: {done.stderr[-2000:]}")
        return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class DiskScenario:
    """``breaking`` and ``mending`` of the disk; ``words``: what all who are told must read.

    ``may_go_on``: PostgreSQL may survive it; it does where its tables find no room, and its log does.
    """

    name: str
    rounds: int
    breaking: Callable[[Disk], None]
    mending: Callable[[Disk], None]
    words: str
    may_go_on: bool = False

    @property
    def goals(self) -> Mapping[str, int]:
        """As of ``Scenario``."""
        return {self.name: self.rounds, "nothing corrupt": self.rounds}

    def run(
        self,
        _servers: object,
        directory: Path,
        result: Result,
        _goals: object,
        after_round: Callable[[Result], None],
    ) -> None:
        """The rounds that ``result`` lacks, all of them on one system and one disk of their own."""
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        directory.parent.chmod(0o755)  # for PostgreSQL's user
        with Disk(directory) as disk:
            system = Embedded(disk, directory)
            try:
                system.up()
                user = {"username": f"round-{result.done}"}
                system.client(do=[("USER_CREATE", user)])
                while result.done < result.rounds:
                    result.add(self._round(disk, system, result))
                    after_round(result)
            finally:
                system.process.stop(STOP_SECONDS)
                for log in (disk.path / "data" / "run").glob("*.log"):
                    shutil.copy(log, directory)  # the disk goes; they are asked for if it is broken

    def _round(self, disk: Disk, system: Embedded, result: Result) -> Round:
        began = time.monotonic()
        rng = random.Random(f"{result.seed} {self.name} {result.done}")
        verdict = Verdict()
        titles = [f"{self.name}-{result.done}-{n}" for n in range(TRIES)]
        before = system.client(titles=titles[: rng.randint(1, 5)])
        if any("error" in line for line in before):
            verdict.breach(f"refused before anything was broken: {before}")
        with closing(system.connection()) as kept:
            self.breaking(disk)
            told = before + system.client(titles=titles[len(before) :])
            # PostgreSQL ends at its next write; of its own it may come to one at its checkpoint only.
            with suppress(psycopg2.Error), kept.cursor() as cursor:
                cursor.execute("SELECT pg_logical_emit_message(true, 'faults', '')")
                kept.commit()
        refused = [line for line in told if "error" in line]
        verdict.refused = len(refused)
        if not refused or refused[0]["code"] != "unavailable":
            verdict.breach(f"no submission was refused as unavailable: {refused}")
        elif not any(words in refused[0]["error"] for words in (self.words, "Connection refused")):
            verdict.breach(f"the client was told: {refused[0]['error']}")
        done = Counter({self.name: 1})
        done[f"the client read {self.words!r}"] += (
            bool(refused) and self.words in refused[0]["error"]
        )
        ended = system.ended(SETTLE if self.may_go_on else PATIENCE)
        if ended is None and self.may_go_on:
            self.mending(disk)  # it may be at its end all the same, of what it wrote before
            ended = system.ended(SETTLE)
        said = system.process.log_text()
        if ended is None and self.may_go_on:
            done["went on without a restart"] += 1
        elif ended != 1 or self.words not in said or "What to do" not in said:
            verdict.breach(f"up ended with {ended}, and said: {said[-500:]}")
        if "Traceback" in said:
            verdict.breach("up ended with a traceback")
        self.mending(disk)
        system.up()
        wanted = self._ends(system, told, verdict)
        self._effects(system, told, wanted, verdict)
        corrupt = system.corrupt()
        if corrupt:
            verdict.breach(f"the database is corrupt: {corrupt}")
        done["nothing corrupt"] += not corrupt
        return Round(verdict, done, time.monotonic() - began)

    def _ends(self, system: Embedded, told: list[Any], verdict: Verdict) -> Counter[str]:
        """The titles of which there must be a chat."""
        known = [line for line in told if line["id"] is not None]
        wanted: Counter[str] = Counter()
        for line, envelope in zip(known, system.client(ids=[k["id"] for k in known]), strict=True):
            if envelope is None and "error" in line:
                continue  # it "may still run": PostgreSQL went before it had said that it has the row
            verdict.accepted += 1
            wanted[line["title"]] += 1
            if envelope is None:
                verdict.ends["missing"] += 1
                continue  # without its chat, which is a breach
            verdict.ends[envelope.get("error", {}).get("code", "success")] += 1
            if envelope["status"] != "success":
                verdict.breach(f"{line['id']}: {envelope['message']} {envelope['error']}")
        return wanted

    def _effects(
        self, system: Embedded, told: list[Any], wanted: Counter[str], verdict: Verdict
    ) -> None:
        found: Counter[str] = Counter()
        after = 0
        while after is not None:
            (page,) = system.client(do=[("CHAT_LIST", {"limit": 1000, "after": after or None})])
            found.update(chat["title"] for chat in page["data"]["chats"])
            after = page["data"]["next"]
        for line in told:
            if found[line["title"]] > wanted[line["title"]]:
                verdict.duplicated += 1
                verdict.breach(f"{line['title']}: {found[line['title']]} chats")
            elif found[line["title"]] < wanted[line["title"]]:
                verdict.lost += 1
                verdict.breach(f"{line['title']}: no chat, though it was accepted")


SCENARIOS = (
    DiskScenario("disk-full", 5, Disk.fill, Disk.free, "No space left on device", may_go_on=True),
    DiskScenario("disk-read-only", 5, Disk.break_down, Disk.mend, "Read-only file system"),
)
