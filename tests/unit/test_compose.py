"""docker-compose.yml, Dockerfile and .env.example agree with each other and with the code.

Read as text, since nothing else here needs a YAML parser. A service's block is what stands below its
name at two spaces; what it takes over from a template (``<<: *worker``) is looked up there.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from llmchatlinker.health import OLD
from llmchatlinker.settings import PREFIX, Settings
from llmchatlinker.stopping import LAST_WORDS
from llmchatlinker.topology import QUEUE_NAMES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _blocks(text: str, indent: int) -> dict[str, str]:
    """What stands below each name at this indent."""
    pattern = rf"^ {{{indent}}}([\w-]+):(.*?)(?=^ {{0,{indent}}}[\w-]|\Z)"
    return dict(re.findall(pattern, text, re.MULTILINE | re.DOTALL))


TOP = _blocks(_without_comments(COMPOSE), 0)
SERVICES = _blocks(TOP["services"], 2)
WORKERS = {name: text for name, text in SERVICES.items() if "<<: *worker" in text}
OWN = [name for name in SERVICES if name not in ("rabbitmq", "postgres")]
each_service = pytest.mark.parametrize("name", SERVICES)


def _whole(name: str) -> str:
    """A service's block with that of its templates below it."""
    text, templates = SERVICES[name], {}
    for block in TOP.values():
        anchor = re.match(r" &([\w-]+)", block)
        if anchor:
            templates[anchor[1]] = block
    for _ in templates:
        text = re.sub(r"<<: \*([\w-]+)", lambda found: templates[found[1]], text)
    return text


def _seconds(name: str, key: str) -> float:
    # The service's own first: it wins over the template's.
    text = SERVICES[name] + "\n" + _whole(name)
    found = re.search(rf"^ *{key}: (\d+)s$", text, re.MULTILINE)
    assert found is not None, f"{name} has no {key}"
    return float(found[1])


def test_every_queue_has_one_worker_service() -> None:
    queues = re.findall(r'"-Q", "([\w.]+)"', "".join(WORKERS.values()))
    assert sorted(queues) == sorted(QUEUE_NAMES)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_service_scales(name: str) -> None:
    text = _whole(name)
    assert "container_name" not in text
    assert "ports:" not in text
    assert re.search(r'"-n", "[\w-]+@%h"', text), "processes need names of their own"


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_time_to_finish_what_it_is_at(name: str) -> None:
    assert _seconds(name, "stop_grace_period") > Settings().stop_timeout + LAST_WORDS


@pytest.mark.parametrize("name", WORKERS)
def test_the_probe_looks_at_the_heartbeat_with_the_age_that_counts_as_dead(name: str) -> None:
    heartbeat = re.search(rf"{PREFIX}HEARTBEAT_FILE: (\S+)", TOP["x-worker-settings"])
    assert heartbeat is not None
    assert f"find {heartbeat[1]} -newermt '{OLD:.0f} seconds ago'" in _whole(name)


@each_service
def test_every_service_that_stays_has_a_probe_and_comes_back(name: str) -> None:
    text = _whole(name)
    if name == "migrate":
        assert 'restart: "no"' in text
        return
    assert "healthcheck:" in text
    assert "restart: unless-stopped" in text


@each_service
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    ports = re.search(r"ports:\n((?: +- .*\n)+)", SERVICES[name] + "\n")
    for line in ports[1].splitlines() if ports else []:
        assert line.strip().startswith('- "127.0.0.1:'), line


@each_service
def test_no_service_gains_privileges(name: str) -> None:
    assert "no-new-privileges:true" in _whole(name)


@pytest.mark.parametrize("name", OWN)
def test_our_own_services_write_nowhere_but_to_memory(name: str) -> None:
    text = _whole(name)
    assert "read_only: true" in text
    assert "tmpfs:" in text
    assert re.search(r"cap_drop:\n +- ALL", text)


def test_only_those_that_see_api_keys_have_the_key_to_them() -> None:
    having = {name for name, text in SERVICES.items() if "*key-settings" in text}
    assert having == {"control", "llm", "generate"}
    assert len(re.findall(rf"^ +{PREFIX}SECRET_KEYS:", COMPOSE, re.MULTILINE)) == 1


def test_flower_asks_for_a_password() -> None:
    assert "FLOWER_BASIC_AUTH: ${FLOWER_USER:?" in SERVICES["flower"]


def test_flower_is_started_by_our_command_and_only_looks_on() -> None:
    command = re.search(r"command: (\[.*\])", SERVICES["flower"])
    assert command is not None
    assert json.loads(command[1])[:2] == ["llmchatlinker", "flower"]
    assert "--allow-control" not in command[1]


def test_flowers_file_is_in_a_folder_that_is_the_images_users_own() -> None:
    kept = re.search(r"FLOWER_DB: (\S+)", SERVICES["flower"])
    assert kept is not None
    folder = str(Path(kept[1]).parent)
    assert f":{folder}\n" in SERVICES["flower"]
    assert re.search(rf"--owner=llmchatlinker .*--mode=0700 {folder}$", DOCKERFILE, re.MULTILINE)


def test_every_setting_in_the_compose_file_is_one() -> None:
    known = {PREFIX + item.name.upper() for item in fields(Settings)}
    assert set(re.findall(rf"^ +({PREFIX}\w+):", COMPOSE, re.MULTILINE)) <= known


def test_the_example_environment_has_what_the_compose_file_asks_for_and_no_more() -> None:
    assert set(re.findall(r"\$\{(\w+)", _without_comments(COMPOSE))) == set(EXAMPLE)


def test_the_values_of_the_example_environment_work() -> None:
    Fernet(EXAMPLE[f"{PREFIX}SECRET_KEYS"])
    Settings.from_environment({k: v for k, v in EXAMPLE.items() if k.startswith(PREFIX)})
    for name, value in EXAMPLE.items():
        if "PASSWORD" in name:
            assert re.fullmatch(r"[\w-]+", value), "it becomes part of an address"


def test_the_defaults_of_the_compose_file_are_those_of_the_example() -> None:
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE):
        assert EXAMPLE[name] == default


def test_postgresql_has_connections_for_every_worker() -> None:
    limit = re.search(r"max_connections=(\d+)", SERVICES["postgres"])
    assert limit is not None
    assert int(limit[1]) >= 2 * len(WORKERS) * Settings().database_pool_size


def test_the_image_copies_what_is_there_and_what_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == kept
    for source in sources:
        assert (ROOT / source).exists(), source


def test_no_secret_gets_into_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert not any(fnmatch(".env", line[1:]) for line in patterns if line.startswith("!"))


def test_the_image_runs_as_an_ordinary_user() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
