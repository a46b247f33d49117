"""Which network addresses a result URL may lead to."""

from __future__ import annotations

import ipaddress

NOT_PUBLIC = "its address is not on the public internet. The URL is in image.url"

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# `ipaddress` of CPython 3.11 to 3.13 calls some or all of these global; no public web server is there.
# Source: IANA special-purpose registries, read 2026-11-23.
_NEVER = (
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("2001::/23"),
    ipaddress.IPv6Network("3fff::/20"),  # documentation
    ipaddress.IPv6Network("fec0::/10"),  # site-local, deprecated and still routed inside some sites
)


def is_public(address: str) -> bool:
    """Return whether `address` (an IP address, as a connected socket reports it) is on the open internet.

    Addresses that carry another one inside (IPv4-mapped, 6to4, NAT64) are judged by the one inside,
    since that is where the packets go. Teredo, which names two, is refused.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    if any(ip.version == network.version and ip in network for network in _NEVER):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)
