"""From a request to its answer: through the cache where there is one, else from the API."""

from __future__ import annotations

from contextlib import ExitStack

from imgkit.cache_use import CacheUse, Fetched
from imgkit.core import Core
from imgkit.errors import ConfigurationError
from imgkit.exchange import Course, exchange
from imgkit.flow import Flow
from imgkit.wire import HttpRequest


def fetch(
    core: Core, course: Course, request: HttpRequest, use: CacheUse, cleanup: ExitStack
) -> Flow[Fetched]:
    """Return the answer to a request: from the cache if there is one that has it, else from the API.

    Raises:
        ConfigurationError: ``cache="only"``, and there is no cache.
        ImgkitError: what the cache or the exchange raises.
    """
    supplied = course.equipment.cache
    if use.mode == "off" or supplied is None:
        if use.mode == "only":
            raise ConfigurationError(
                'cache="only", but this service has no cache: give it one with plugins=["cache"]'
            )
        return Fetched(*(yield from exchange(request, course)))
    from imgkit.single_flight import shared

    return (yield from shared(core, course, request, supplied, use, cleanup))
