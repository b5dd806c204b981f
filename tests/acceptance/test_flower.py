"""``llmchatlinker flower`` before real workers: what it shows, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from flower import urls

from llmchatlinker.celery_app import ROOT
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import GENERATE, QUEUE_NAMES
from tests.fixtures.cycles import Cycle
from tests.fixtures.servers import cannot_test
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker, environment
from tests.servers import HOST, free_ports
from tests.servers.certificates import Authority
from tests.servers.nginx import PrivateNginx
from tests.servers.private import StartError
from tests.servers.provider import ScriptedProvider

TEXT = "canary text 7777"
#: A worker for each queue, and so for each unit; the first one obeys.
SERVED = {
    f"test{number}@localhost": name
    for number, name in enumerate(sorted(QUEUE_NAMES, key=lambda name: name != GENERATE))
}


class Flower:
    """One that runs."""

    def __init__(self, url: str, process: ManagedProcess) -> None:
        self.url = url
        self.process = process
        said = re.search(r"User (\S+), password (\S+) \(made up", process.log_text())
        assert said is not None, process.log_text()
        self.auth = (said[1], said[2])

    def get(self, path: str) -> requests.Response:
        """A page, for whoever knows the password."""
        return requests.get(self.url + path, auth=self.auth, timeout=20)

    def post(self, path: str) -> requests.Response:
        """An order, from the same."""
        return requests.post(self.url + path, auth=self.auth, timeout=20)

    def ended(self) -> dict[str, Any]:
        """The tasks that have succeeded, by id."""
        tasks: dict[str, Any] = self.get("/api/tasks").json()
        return {key: task for key, task in tasks.items() if task["state"] == "SUCCESS"}

    def online(self) -> set[str]:
        """The workers of which it has heard lately."""
        rows = self.get("/workers?json=1").json()["data"]
        return {row["hostname"] for row in rows if row["status"]}

    def inspected(self) -> dict[str, Any]:
        """What workers have answered."""
        found: dict[str, Any] = self.get("/api/workers?refresh=1").json()
        return found


@contextmanager
def flower(folder: Path, *options: str) -> Iterator[Flower]:
    """Flower in that folder, until the end of the block."""
    (port,) = free_ports(1)
    (folder / "flowerconfig.py").write_text("raise RuntimeError('the wrong configuration')")
    process = ManagedProcess(
        "Flower",
        [sys.executable, "-m", "llmchatlinker", "flower", f"--port={port}",
         f"--state={folder}/state/flower", *options],
        environment(get_settings()),
        folder / "flower.log",
        cwd=folder,
    )  # fmt: skip
    process.start()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthcheck", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_until(answers, 60, process)
        yield Flower(url, process)
    finally:
        process.stop(30)


@pytest.fixture
def workers(worker: StartWorker) -> dict[str, ManagedProcess]:
    """One of each unit, and one for generations, by the names that Flower knows."""
    return {
        name: worker(queue, **({"remote_control": "all"} if queue == GENERATE else {}))
        for name, queue in SERVED.items()
    }


def work(client: LLMChatLinkerClient, provider: ScriptedProvider) -> str:
    """An instruction of each unit, with a text in each that may have one; the answer's id."""
    user = client.create_user("ada", profile=TEXT)["data"]["user"]["user_id"]
    chat = client.create_chat(TEXT, user_ids=[user])["data"]["chat"]["chat_id"]
    added = client.add_llm_provider("scripted", provider.base_url)["data"]["provider"]
    llm = client.add_llm(added["provider_id"], "echo")["data"]["llm"]["llm_id"]
    answer = client.generate_llm_response(user, chat, added["provider_id"], llm, TEXT)
    assert answer["status"] == "success", answer
    assert client.run("INSTRUCTION_LIST")["status"] == "success"
    return str(answer["instruction_id"])


def orders() -> list[str]:
    """The path of each order that Flower's API takes, for our worker."""
    entries = [entry for entry in urls.handlers if isinstance(entry, tuple)]
    return [
        re.sub(r"\(\.[+*]\)", "test1@localhost", entry[0])
        for entry in entries
        if entry[0].startswith("/api/") and "post" in vars(entry[1])
    ]


def test_flower_shows_workers_and_stages_and_no_text_and_takes_no_orders(
    workers: dict[str, ManagedProcess], provider: ScriptedProvider, tmp_path: Path
) -> None:
    with flower(tmp_path) as shown:
        for path in ("/", "/tasks", "/api/tasks", "/api/workers", "/workers?json=1"):
            assert requests.get(shown.url + path, timeout=20).status_code == 401, path
        assert shown.process.pid is not None
        running = psutil.Process(shown.process.pid)
        listening = [c for c in running.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
        assert shown.auth[1] not in " ".join(running.cmdline())

        # It hears events once it has heard of every worker; what it misses never comes again.
        eventually(lambda: shown.online() == set(workers))
        answer_id = work(LLMChatLinkerClient(), provider)
        eventually(lambda: len(shown.ended()) == 6 * 3)

        names = [task["name"].removeprefix("llmchatlinker.") for task in shown.ended().values()]
        assert sorted(names) == sorted(
            ["control.decode"] * 6
            + ["user.user_create", "chat.chat_create", "llm.llm_provider_add", "llm.llm_add"]
            + ["llm.llm_response_generate", "database.instruction_list"]
            + ["database.store"] * 6
        )
        assert shown.ended()[answer_id]["name"] == "llmchatlinker.database.store"
        # It gives workers a second to answer.
        eventually(lambda: all("active_queues" in shown.inspected().get(n, ()) for n in workers))
        found = shown.inspected()
        queues = {
            name: {queue["name"] for queue in found[name]["active_queues"]} for name in workers
        }
        assert queues == {name: {queue} for name, queue in SERVED.items()}

        pages = ["/", "/tasks", "/workers", "/api/tasks", "/metrics", f"/task/{answer_id}"]
        pages += [f"/worker/{name}" for name in workers]
        answers = {path: shown.get(path) for path in pages}
        assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(
            pages, 200
        )
        assert [path for path, answer in answers.items() if "canary" in answer.text] == []
        assert "canary" not in json.dumps(found) + shown.process.log_text()
        metrics = answers["/metrics"].text
        assert re.search(r'flower_events_total\{task="llmchatlinker.user.user_create"', metrics)
        assert re.search(r'flower_worker_online\{worker="test0@localhost"\} 1.0', metrics)

        refused = {path: shown.post(path).status_code for path in orders()}
        assert len(refused) > 10
        assert set(refused.values()) == {403}, refused
        result = shown.get(f"/api/task/result/{answer_id}")
        assert result.status_code == 403
        assert "canary" not in result.text
        assert all(process.alive for process in workers.values())
        before = set(shown.ended())
    assert shown.process.poll() == 0

    with flower(tmp_path, "--allow-control") as again:
        assert set(again.ended()) == before
        assert again.get(f"/api/task/result/{answer_id}").status_code == 403
        # What has not been inspected is no worker that it knows.
        eventually(lambda: "test0@localhost" in again.get("/api/workers?refresh=1").json())
        assert again.post("/api/worker/shutdown/test0@localhost").status_code == 200
        eventually(lambda: not workers["test0@localhost"].alive, 60)
        assert workers["test1@localhost"].alive


#: Ways to write a path that a proxy and Flower may each read in another way.
DISGUISES = (
    "/metrics/", "//metrics", "/%6detrics", "/x/../metrics", "/x/%2e%2e/metrics", "/metrics%00",
    "/metrics/../api/workers", "/metrics/..%2fapi/workers", "/metrics%2f..%2fapi%2fworkers",
    "/metrics;/../api/workers", "/metrics?/../api/workers", "/healthcheck/", "/%68ealthcheck",
)  # fmt: skip


class Proxy:
    """nginx as docs/flower.md has it, with ports and certificates of the test's own."""

    def __init__(self, flower_url: str, folder: Path) -> None:
        self.authority = Authority(folder, "nginx")
        pair = self.authority.sign("flower", HOST)
        metrics, pages = free_ports(2)
        page = (ROOT / "docs" / "flower.md").read_text(encoding="utf-8")
        (text,) = re.findall(r"^```nginx\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        for theirs, ours in {
            "http://127.0.0.1:5555": flower_url,
            "listen 127.0.0.1:5556": f"listen {HOST}:{metrics}",
            "listen 443": f"listen {HOST}:{pages}",
            "flower.example.org": HOST,
            "/etc/ssl/flower.pem": str(pair.cert),
            "/etc/ssl/flower.key": str(pair.key),
        }.items():
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        self.server = PrivateNginx(text, pages)
        self.metrics = f"http://{HOST}:{metrics}"
        self.pages = f"https://{HOST}:{pages}"

    def get(self, url: str, **more: Any) -> requests.Response:
        """A page, by a path that is sent as it is written: requests would tidy it up."""
        scheme, _, rest = url.partition("://")
        base = f"{scheme}://{rest.partition('/')[0]}"
        request = requests.Request("GET", base, **more).prepare()
        request.url = url
        with requests.Session() as session:
            return session.send(request, timeout=20, verify=str(self.authority.file))


@pytest.fixture
def proxied(cycle: Cycle, tmp_path: Path) -> Iterator[tuple[Flower, Proxy]]:
    """Flower that takes orders, and nginx before it."""
    with flower(tmp_path, "--allow-control") as shown:
        proxy = Proxy(shown.url, tmp_path)
        try:
            proxy.server.start()
        except StartError as error:
            cannot_test("nginx", error)
        try:
            yield shown, proxy
        finally:
            proxy.server.stop()


def test_behind_nginx_prometheus_reaches_the_metrics_and_nothing_else(
    proxied: tuple[Flower, Proxy],
) -> None:
    shown, proxy = proxied
    found = proxy.get(proxy.metrics + "/metrics")
    assert found.status_code == 200
    assert "# TYPE flower_events_total counter" in found.text

    for path in ("/", "/workers", "/api/workers", "/tasks", "/healthcheck", "/login", *DISGUISES):
        answer = proxy.get(proxy.metrics + path, auth=shown.auth)
        # Some of them nginx reads as /metrics, and Flower must then read them as that, or as nothing.
        assert answer.status_code in (400, 404) or "flower_events_total" in answer.text, path
    order = f"{proxy.metrics}/api/worker/shutdown/test0@localhost"
    assert requests.post(order, auth=shown.auth, timeout=20).status_code == 404


def test_behind_nginx_people_see_the_pages_over_tls_with_their_password_and_no_metrics(
    proxied: tuple[Flower, Proxy],
) -> None:
    shown, proxy = proxied
    for path in ("/", "/tasks", "/workers", "/api/tasks"):
        assert proxy.get(proxy.pages + path).status_code == 401, path
        assert proxy.get(proxy.pages + path, auth=shown.auth).status_code == 200, path
    for path in ("/metrics", "/healthcheck", *DISGUISES):
        answer = proxy.get(proxy.pages + path, auth=shown.auth)
        assert "flower_events_total" not in answer.text, path
        assert answer.text.strip() != "OK", path
    assert proxy.get(proxy.pages + "/metrics").status_code == 404
    assert proxy.get(proxy.pages + "/healthcheck").status_code == 404
    plain = requests.get(proxy.pages.replace("https", "http"), auth=shown.auth, timeout=20)
    assert plain.status_code == 400


def test_behind_nginx_an_order_from_its_own_pages_is_taken_and_from_elsewhere_refused(
    proxied: tuple[Flower, Proxy],
) -> None:
    shown, proxy = proxied

    def order(origin: str) -> int:
        return requests.post(
            f"{proxy.pages}/api/worker/shutdown/nobody@nowhere",
            auth=shown.auth,
            headers={"Origin": origin},
            verify=str(proxy.authority.file),
            timeout=20,
        ).status_code

    assert order("https://elsewhere.example.org") == 403
    assert order(proxy.pages) == 404  # Flower knows no such worker; so it was not refused
