"""The check of a server's network address, before imgkit downloads a result from it."""

from __future__ import annotations

import ipaddress

NOT_PUBLIC = "its address is not on the public internet"
"""Reason in the message of a `DownloadBlockedError`."""

BLOCKED_HINT = (
    "If you trust its server, pass download_origins=[…] with its origin. The URL is in image.url; or pass "
    'response_format="b64_json".'
)
"""Remedy in the message of a `DownloadBlockedError`."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# `ipaddress` of CPython 3.11 to 3.13 calls some or all of these global; no public web server is there.
# Source: IANA special-purpose registries, read 2026-11-23.
_NEVER_PUBLIC = (
    # IETF protocol assignments.
    ipaddress.IPv4Network("192.0.0.0/24"),
    # Deprecated 6to4 relays.
    ipaddress.IPv4Network("192.88.99.0/24"),
    # NAT64 inside a site.
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    # IETF protocol assignments, Teredo among them.
    ipaddress.IPv6Network("2001::/23"),
    # Documentation.
    ipaddress.IPv6Network("3fff::/20"),
    # Site-local: deprecated, and still routed inside some sites.
    ipaddress.IPv6Network("fec0::/10"),
)


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet.

    An address that contains another address (IPv4-mapped, 6to4, NAT64) counts as the inner
    address, because the packets go there. Teredo addresses contain two and are never public.

    Example::

        >>> is_public("1.1.1.1"), is_public("::ffff:127.0.0.1")
        (True, False)

    Args:
        address: the address as a connected socket reports it. Other text is never public.
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
    if any(ip.version == network.version and ip in network for network in _NEVER_PUBLIC):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)
