"""The checks of rows before the first request: their providers and the keys of these."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from imgkit.bulk.bulk_values import Work
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.rows import to_request
from imgkit.core.core import Core
from imgkit.core.interception import is_intercepting
from imgkit.errors import MissingKeyError
from imgkit.models import Operation
from imgkit.plugins.events import Call
from imgkit.plugins.tokens import TokenNeeded
from imgkit.wire.json_values import JsonMapping
from imgkit.wire.messages import HttpRequest


class RowChecks:
    """Checks the rows of a run before anything is sent, so that none fails after others were paid.

    Args:
        core: parts of the service.
        find_core: returns the core that carries out a row; raises ConfigurationError if there is none.
    """

    def __init__(self, core: Core, find_core: Callable[[Work], Core]) -> None:
        self._core = core
        self._find_core = find_core
        self._unsigned: dict[str | None, None] = {None: None}

    def check_provider(self, name: str) -> None:
        """Build the provider that a row names.

        Raises:
            ConfigurationError: the provider is unknown, or lacks a setting.
        """
        self._find({"provider": name})
        self._unsigned.setdefault(name)

    def require_keys(self, find_row: Callable[[str | None], BulkRow | None], *, is_remote: bool) -> None:
        """Check the keys of all providers that rows have named since the last time. May block.

        Args:
            find_row: returns a row that waits for a provider, None for none; None stands for rows that name
                no provider.
            is_remote: workers carry out the rows of the service's own provider, with keys of their own.

        Raises:
            MissingKeyError: a provider has no key, and rows wait for it.
            ConfigurationError: the key of a provider cannot be used.
        """
        for name in list(self._unsigned):
            core = self._find({} if name is None else {"provider": name})
            is_free = core.target.host_class == "offline" or (is_remote and core is self._core)
            if is_free or is_intercepting():
                continue
            if not _has_key(core):
                row = find_row(name)
                if row is None:
                    continue
                self._sign(core, row)
            del self._unsigned[name]

    def _sign(self, core: Core, row: BulkRow) -> None:
        try:
            _sign_row(core, row)
        except MissingKeyError as error:
            if core is self._core:
                raise
            raise MissingKeyError(
                f"{error.problem} Rows name the provider {row.request['provider']!r}. Nothing was sent.",
                hint="Set it. Other providers than that of the service have their keys in the environment.",
                field="provider",
            ) from None

    def _find(self, request: JsonMapping) -> Core:
        return self._find_core(Work(BulkRow(0, "", "waiting", request, {})))


def find_provider(rows: Sequence[BulkRow], provider: str | None) -> BulkRow | None:
    """Return the first row that names a provider, None for none.

    Args:
        rows: the rows.
        provider: the name; None for rows that name no provider.
    """
    return next((row for row in rows if row.request.get("provider") == provider), None)


def _has_key(core: Core) -> bool:
    """Return whether a key is at hand, without a fetch, or none is needed.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    try:
        signed = core.table.authenticate(_to_host(core), _begin_call(core))
    except MissingKeyError:
        return False
    return not isinstance(signed, TokenNeeded)


def _sign_row(core: Core, row: BulkRow) -> None:
    """Sign a request as the call of a row would, with the headers that plugins add. May block.

    Raises:
        MissingKeyError: there is no key.
        ImgkitError: the key cannot be used, or fetched.
    """
    asked = to_request(row.request)
    call = _begin_call(core, asked.operation)
    asked = core.table.prepare(asked, call)
    headers = {name.lower(): value for name, value in (asked.extra_headers or {}).items() if value}
    request = core.table.before_send(_to_host(core).with_headers(headers), call)
    signed = core.table.authenticate(request, call)
    if isinstance(signed, TokenNeeded):
        signed.fetch()


def _to_host(core: Core) -> HttpRequest:
    return HttpRequest("POST", core.target.base_url)


def _begin_call(core: Core, operation: Operation = "create_image") -> Call:
    return Call(
        id=uuid.uuid4().hex,
        operation=operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=core.limits.timeout_s,
    )
