"""The optional abilities of backends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "ca": "Verifies servers with `BackendOptions.ca`.",
        "connect timeout": "Limits connecting, TLS included, to `Transfer.connect_timeout_s()`.",
        "early refusal": "Reads a reply that arrives during the upload.",
        "hang up": "Disconnects at once when the transfer is aborted or its task is cancelled.",
        "https proxy": "Reaches a `BackendOptions.proxy` with an https URL over TLS.",
        "proxy": "Sends through `BackendOptions.proxy` if its URL is http.",
        "reuse": "Keeps connections open if `BackendOptions.reuse_connections` is True.",
        "unsent": "Tells a failed connection, which sent nothing, from every later failure.",
    }
)
"""The optional abilities that a backend may declare, with their meanings.

imgkit refuses an argument of a service that needs a capability which the backend does not declare.
"""
