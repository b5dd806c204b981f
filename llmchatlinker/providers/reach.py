"""Which addresses a provider may have: an allow-list, and the refusal of private ones.

Whoever may add a provider chooses where the workers connect to. On a server among others that is more
than it should be: their admin pages and the cloud's metadata service are in reach of the workers, too.
So what is configured here is looked at twice: the address as it is given, when it is decoded, and each
address that its name turns out to have, when it is connected to. A name that has a harmless address at
decode and another one later gains nothing.

Through an HTTP proxy the proxy looks up the name; then only the name is looked at here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import PREFIX, get_settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IPv6 that stands for IPv4 behind a gateway: the address in its last 32 bits counts
#: (RFC 6052, section 2.1; RFC 8215).
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class OutOfReach(ValueError):
    """Providers may not have that address."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``names``: exact ones and, with a leading dot, all below. Without names and networks: any."""

    names: tuple[str, ...]
    networks: tuple[Network, ...]
    public_only: bool

    def check_name(self, host: str) -> None:
        """OutOfReach for a host that can't be allowed, whatever its addresses are."""
        host = _plain(host)
        address = _as_address(host)
        if address is not None:
            self.check_address(host, address)
            return
        if self.public_only and (host == "localhost" or host.endswith(".localhost")):
            raise OutOfReach("must be a public address")
        if (self.names or self.networks) and not (self.networks or self._is_named(host)):
            raise OutOfReach("must be one of the hosts that providers may have")

    def check_address(self, host: str, address: Address) -> None:
        """OutOfReach for an address of that host. A network that is named is allowed, private or not."""
        address = _meant(address)
        if any(address in network for network in self.networks):
            return
        if (self.names or self.networks) and not self._is_named(_plain(host)):
            raise OutOfReach("must be one of the hosts that providers may have")
        if self.public_only and (not address.is_global or address.is_multicast):
            raise OutOfReach("must be a public address")

    def _is_named(self, host: str) -> bool:
        return any(
            host == name or (name.startswith(".") and host.endswith(name)) for name in self.names
        )


def check_endpoint(url: str) -> None:
    """OutOfReach for an endpoint that providers may not have, as far as its text says."""
    rules = _current()
    if rules is not None:
        rules.check_name(urlsplit(url).hostname or "")


def within_reach(host: str, found: Iterable[Any]) -> list[Any]:
    """Of ``getaddrinfo``'s answers for a host those that may be connected to; OutOfReach for none."""
    answers = list(found)
    rules = _current()
    if rules is None:
        return answers
    good, refused = [], OutOfReach("has no address")
    for answer in answers:
        try:
            rules.check_address(host, ipaddress.ip_address(str(answer[4][0]).partition("%")[0]))
        except OutOfReach as error:
            refused = error
        else:
            good.append(answer)
    if not good:
        raise refused
    return good


def _current() -> Rules | None:
    settings = get_settings()
    public_only = settings.provider_private_addresses == "refuse"
    if not settings.provider_hosts and not public_only:
        return None
    return _rules(settings.provider_hosts, public_only)


@lru_cache(maxsize=8)
def _rules(hosts: str, public_only: bool) -> Rules:
    names: list[str] = []
    networks: list[Network] = []
    for item in filter(None, (part.strip() for part in hosts.split(","))):
        try:
            networks.append(ipaddress.ip_network(item.strip("[]"), strict=False))
        except ValueError:
            if "/" in item or ":" in item or "*" in item[1:]:
                raise ConfigurationError(
                    f"{PREFIX}PROVIDER_HOSTS has {item[:100]!r}: name hosts (llm.example.com, "
                    "*.example.com), addresses or networks (10.1.0.0/16), with commas between them."
                ) from None
            names.append(_plain(item.removeprefix("*")))
    return Rules(tuple(names), tuple(networks), public_only)


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None  # a name; or a number in an odd form, which is looked at when it is resolved


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    for network in _TRANSLATED:
        if address in network:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
