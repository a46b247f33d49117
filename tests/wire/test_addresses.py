"""Network addresses from which imgkit downloads results."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.wire.addresses import is_public

PUBLIC = [
    "93.184.216.34", "1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "192.0.1.1",
    "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8",
    "64:ff9b::808:808", "2002:808:808::1",
]  # fmt: skip
NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fdff::1"],
    "link-local, with the metadata services of clouds": [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254",
    ],
    "site-local": ["fec0::1", "feff::1"],
    "carrier NAT": ["100.64.0.1", "100.127.255.255"],
    "protocol assignments": ["192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.1", "192.88.99.1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "100::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:7f00:1",
               "::ffff:0.0.0.0"],
    "compatible": ["::127.0.0.1", "::8.8.8.8"],
    "translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::192.168.0.1", "64:ff9b:1::808:808"],
    "Teredo": ["2001:0:7f00:1::1", "2001:0:808:808:0:0:f7f7:f7f7", "2001::1"],
    "ORCHID": ["2001:10::1", "2001:20::1"],
    "no address": ["", "localhost", "127.1", "0177.0.0.1", "2130706433", "0x7f.0.0.1", "1.1.1.1:80", "[::1]",
                   "1.1.1.1 ", "01.1.1.1", "１.1.1.1", "example.com", "\0"],
}  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """Accepts addresses of the public internet, also inside another address."""
    assert is_public(address)


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, address) for kind, group in NOT_PUBLIC.items() for address in group]
)
def test_not_public(kind: str, address: str) -> None:
    """Refuses private, reserved and multicast addresses in every notation, and text that is no address."""
    assert not is_public(address), kind


@given(st.ip_addresses(v=4))
def test_wrapped_addresses_count_as_the_inner_address(inner: ipaddress.IPv4Address) -> None:
    """Gives an IPv4 address the same result when it is mapped, or wrapped by NAT64 or 6to4."""
    number = int(inner)
    wrapped = [(0xFFFF << 32) | number, (0x64_FF9B << 96) | number, (0x2002 << 112) | (number << 80)]
    assert {is_public(str(ipaddress.IPv6Address(value))) for value in wrapped} == {is_public(str(inner))}


@given(st.ip_addresses())
def test_never_more_than_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Accepts no address that the standard library calls private, loopback, link-local or multicast."""
    inside = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if inside and not str(address).startswith(("64:ff9b:", "2002:", "::ffff:")):
        assert not is_public(str(address))


@given(st.text())
def test_any_text_is_public_or_not(text: str) -> None:
    """Raises nothing for text that a socket might report in place of an address."""
    assert is_public(text) in (True, False)
