"""Which addresses a provider may have."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from llmchatlinker.errors import ConfigurationError
from llmchatlinker.providers.reach import OutOfReach, check_endpoint, within_reach
from tests.fixtures.configuration import Configure


def resolved(*addresses: str) -> list[tuple[object, ...]]:
    """As ``getaddrinfo`` answers."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]


def is_given(host: str) -> bool:
    try:
        check_endpoint(f"https://{host}/v1")
    except OutOfReach:
        return False
    return True


def is_connected_to(host: str, address: str) -> bool:
    try:
        return bool(within_reach(host, resolved(address)))
    except OutOfReach:
        return False


def test_without_settings_every_address_is_in_reach() -> None:
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "8.8.8.8"):
        assert is_connected_to("llm.example.com", address)
        assert is_given(f"[{address}]" if ":" in address else address)


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.100.100.200", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_can_be_refused(configure: Configure, address: str) -> None:
    configure(provider_private_addresses="refuse")

    assert not is_connected_to("llm.example.com", address)
    if "%" not in address:
        assert not is_given(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_public_one_is_still_in_reach(configure: Configure, address: str) -> None:
    configure(provider_private_addresses="refuse")

    assert is_connected_to("llm.example.com", address)
    assert is_given(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "llm.localhost"])
def test_so_can_names_of_this_machine(configure: Configure, name: str) -> None:
    configure(provider_private_addresses="refuse")

    assert not is_given(name)


def test_of_several_addresses_those_in_reach_are_used(configure: Configure) -> None:
    configure(provider_private_addresses="refuse")

    found = within_reach("llm.example.com", resolved("127.0.0.1", "8.8.8.8"))

    assert [answer[4][0] for answer in found] == ["8.8.8.8"]


def test_hosts_can_be_listed_by_name(configure: Configure) -> None:
    configure(provider_hosts="api.openai.com, *.example.com")

    assert is_given("api.openai.com")
    assert is_given("API.OpenAI.com.")
    assert is_given("llm.example.com")
    for other in ("openai.com", "example.com", "badexample.com", "api.openai.com.evil.net"):
        assert not is_given(other)
        assert not is_connected_to(other, "8.8.8.8")
    assert is_connected_to("api.openai.com", "10.0.0.1")


def test_hosts_can_be_listed_by_network(configure: Configure) -> None:
    configure(provider_hosts="10.1.0.0/16,fd00:1::/64,192.0.2.7")

    assert is_given("10.1.2.3")
    assert is_given("[fd00:1::5]")
    assert is_given("192.0.2.7")
    assert not is_given("10.2.0.1")
    assert is_given("llm.internal"), "which addresses it has is seen when it is connected to"
    assert is_connected_to("llm.internal", "10.1.2.3")
    assert not is_connected_to("llm.internal", "10.2.0.1")


def test_a_network_that_is_listed_is_in_reach_although_it_is_private(configure: Configure) -> None:
    configure(provider_hosts="10.1.0.0/16,*.example.com", provider_private_addresses="refuse")

    assert is_connected_to("anything", "10.1.2.3")
    assert is_connected_to("llm.example.com", "8.8.8.8")
    assert not is_connected_to("llm.example.com", "10.2.0.1")
    assert not is_connected_to("another.net", "8.8.8.8")


@pytest.mark.parametrize("hosts", ["10.0.0.0/99", "https://a.b", "a.*.b", "host:80"])
def test_a_list_that_makes_no_sense_says_so(configure: Configure, hosts: str) -> None:
    configure(provider_hosts=hosts)

    with pytest.raises(ConfigurationError, match="LLMCHATLINKER_PROVIDER_HOSTS"):
        check_endpoint("https://example.com")


def test_every_private_network_of_the_standard_library_is_refused(configure: Configure) -> None:
    configure(provider_private_addresses="refuse")
    for network in ipaddress.IPv4Address._constants._private_networks:  # type: ignore[attr-defined]
        assert not is_connected_to(
            "llm.example.com", str(network[1] if network.num_addresses > 1 else network[0])
        )
