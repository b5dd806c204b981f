"""The policies of RabbitMQ: dead-lettering and limits, applied over its management HTTP API.

Policies and not queue arguments, because a policy can be changed while queues have messages in them.
Names of keys: https://www.rabbitmq.com/docs/3.13/parameters and https://www.rabbitmq.com/docs/quorum-queues
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from llmchatlinker.errors import ConfigurationError, Unavailable
from llmchatlinker.settings import Settings, without_password
from llmchatlinker.topology import (
    CONTROL,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    EXCHANGE,
    QUEUE_NAMES,
)

Policy = dict[str, Any]

#: One aborted connection counts against every message that was prefetched on it, so a low limit
#: dead-letters messages that never ran. Poison is a matter of ours.
DELIVERY_LIMIT = 1_000


def policies() -> dict[str, Policy]:
    """Each policy as the HTTP API takes it."""
    names = "|".join(name.replace(".", r"\.") for name in QUEUE_NAMES)
    return {
        "llmchatlinker-queues": {
            "pattern": f"^({names})$",
            "apply-to": "queues",
            "priority": 10,
            "definition": {
                "dead-letter-exchange": DEAD_LETTER_EXCHANGE,
                # With at-least-once a dead letter is only let go once the other queue has it, and
                # that needs reject-publish.
                "dead-letter-strategy": "at-least-once",
                "overflow": "reject-publish",
                "delivery-limit": DELIVERY_LIMIT,
            },
        },
        "llmchatlinker-exchange": {
            "pattern": f"^{EXCHANGE}$",
            "apply-to": "exchanges",
            "priority": 10,
            "definition": {"alternate-exchange": DEAD_LETTER_EXCHANGE},
        },
    }


#: What a user of RabbitMQ may configure, write and read, as regular expressions over names
#: (https://www.rabbitmq.com/docs/access-control#authorisation): clients put instructions in and wait
#: for hints; workers serve queues and are seen by Flower; Flower looks on. Declaring a queue that is
#: there takes the right to configure it.
_QUEUES = "|".join(name.replace(".", r"\.") for name in QUEUE_NAMES)
_OWN = r"llmchatlinker\.(reply|events)\..*"
_WATCHING = r"celeryev(\..*)?|(.*\.)?celery\.pidbox"
_CLIENT = rf"llmchatlinker|{CONTROL}|llm\.generate|{_OWN}"
_DELAYS = r"celery_delayed_.*"
_WORKER = rf"llmchatlinker(\.dead)?|{_QUEUES}|{DEAD_LETTER_QUEUE}|{_OWN}|{_WATCHING}|{_DELAYS}"
ROLES: dict[str, dict[str, str]] = {
    "client": {
        "configure": f"^({_CLIENT})$",
        "write": rf"^({_CLIENT}|amq\.default)$",
        "read": f"^(llmchatlinker|{_OWN})$",
    },
    "worker": {
        "configure": f"^({_WORKER})$",
        "write": rf"^({_WORKER}|amq\.default)$",
        "read": f"^({_WORKER})$",
    },
    "flower": {
        "configure": f"^({_WATCHING})$",
        "write": f"^({_WATCHING})$",
        "read": f"^({_WATCHING})$",
    },
}


def add_user(settings: Settings, name: str, password: str, role: str) -> None:
    """Make a user of RabbitMQ, or change its password, with what the role may and nothing else."""
    url, host = _api(settings), quote(virtual_host(settings), safe="")
    user = quote(name, safe="")
    _put(f"{url}/api/users/{user}", {"password": password, "tags": ""})
    _put(f"{url}/api/permissions/{host}/{user}", dict(ROLES[role]))


def user_commands(settings: Settings, name: str, role: str) -> list[str]:
    """The same as ``rabbitmqctl`` commands; the first reads the password from its standard input."""
    rights = " ".join(f"'{ROLES[role][kind]}'" for kind in ("configure", "write", "read"))
    return [
        f"rabbitmqctl add_user {name}",
        f"rabbitmqctl set_permissions -p '{virtual_host(settings)}' {name} {rights}",
    ]


def apply(settings: Settings) -> list[str]:
    """Put the policies onto the virtual host of ``broker_url``; return their names."""
    url = _api(settings)
    host = quote(virtual_host(settings), safe="")
    for name, policy in policies().items():
        _put(f"{url}/api/policies/{host}/{name}", policy)
    return list(policies())


def missing(settings: Settings) -> list[str]:
    """The names of those policies that are not on the virtual host as they should be."""
    host = quote(virtual_host(settings), safe="")
    there = {policy["name"]: policy for policy in _get(settings, f"/api/policies/{host}").json()}
    return [
        name
        for name, policy in policies().items()
        if any(there.get(name, {}).get(key) != value for key, value in policy.items())
    ]


def clock_ahead(settings: Settings) -> float | None:
    """Whole seconds by which the broker's clock is ahead of this machine's, as its HTTP API says."""
    before = time.time()
    said = _get(settings, "/api/whoami").headers.get("Date")
    if said is None:
        return None
    # It says seconds, so up to one of them has passed.
    return round(parsedate_to_datetime(said).timestamp() + 0.5 - (before + time.time()) / 2)


def _api(settings: Settings) -> str:
    if not settings.broker_api_url:
        raise ConfigurationError(
            "LLMCHATLINKER_BROKER_API_URL is not set: it takes the address of RabbitMQ's management "
            "HTTP API, such as http://user:password@localhost:15672. Without that plugin, run what "
            "the same command with --print prints on the broker's machine."
        )
    return settings.broker_api_url.rstrip("/")


def commands(settings: Settings) -> list[str]:
    """The same as ``rabbitmqctl`` commands."""
    host = virtual_host(settings)
    return [
        f"rabbitmqctl set_policy -p '{host}' --priority {policy['priority']} "
        f"--apply-to {policy['apply-to']} {name} '{policy['pattern']}' "
        f"'{json.dumps(policy['definition'])}'"
        for name, policy in policies().items()
    ]


def definitions(virtual_host: str = "/") -> dict[str, Any]:
    """The same as a definitions file, which RabbitMQ loads at its start (``load_definitions``)."""
    return {
        "vhosts": [{"name": virtual_host}],
        "policies": [
            {"vhost": virtual_host, "name": name} | policy for name, policy in policies().items()
        ],
    }


def virtual_host(settings: Settings) -> str:
    """The one of all nodes: a cluster has one, and the policies are its."""
    paths = [urlsplit(url).path for url in settings.broker_addresses]
    hosts = list(dict.fromkeys(unquote(path[1:]) or "/" for path in paths))
    if len(hosts) > 1:
        raise ConfigurationError(
            "The addresses in LLMCHATLINKER_BROKER_URL have different virtual hosts: "
            f"{', '.join(hosts)}.",
            {"remedy": "Name the nodes of one cluster, each with the same virtual host behind it."},
        )
    return hosts[0]


def _put(url: str, body: Policy) -> None:
    _request("PUT", url, body)


def _get(settings: Settings, path: str) -> requests.Response:
    return _request("GET", _api(settings) + path)


#: What to do about a refusal, by HTTP status; 0: any other.
_REFUSED = {
    401: "Put a user and password that RabbitMQ knows into LLMCHATLINKER_BROKER_API_URL; it needs "
    "the tag policymaker, or administrator to add users: `rabbitmqctl set_user_tags NAME TAG`.",
    403: "Give the user of LLMCHATLINKER_BROKER_API_URL the tag policymaker, or administrator to add "
    "users (`rabbitmqctl set_user_tags NAME TAG`), and rights on the virtual host "
    "(`rabbitmqctl set_permissions`).",
    404: "Check that the virtual host of LLMCHATLINKER_BROKER_URL is there (`rabbitmqctl list_vhosts`), "
    "and that LLMCHATLINKER_BROKER_API_URL is the management plugin's address.",
    0: "Its log says why; with --print, `llmchatlinker broker apply` prints rabbitmqctl commands.",
}


def _request(method: str, url: str, body: Policy | None = None) -> requests.Response:
    parts = urlsplit(url)
    auth = HTTPBasicAuth(parts.username or "guest", parts.password or "guest")
    bare = f"{parts.scheme}://{parts.hostname}:{parts.port or 15672}{parts.path}"
    try:
        response = requests.request(method, bare, json=body, auth=auth, timeout=10)
    except requests.RequestException:
        raise Unavailable(
            f"RabbitMQ's HTTP API at {without_password(url)} does not answer: check that the plugin "
            "rabbitmq_management is on and LLMCHATLINKER_BROKER_API_URL is right."
        ) from None
    if response.status_code not in (200, 201, 204):
        raise ConfigurationError(
            f"RabbitMQ's HTTP API refused with HTTP {response.status_code}: {response.text[:200]}",
            {"remedy": _REFUSED.get(response.status_code, _REFUSED[0])},
        )
    return response
