"""The list of providers: the abilities of each, read from its class and its facts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, get_args

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import ImgkitError, UnknownProviderError
from imgkit.models import Operation
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import find_spec, load_hook_table
from imgkit.plugins.table import NamedSpec
from imgkit.providers.base import Provider, StreamingProvider, Target, check_provider
from imgkit.providers.job_base import JobProvider
from imgkit.wire.plain_values import describe_failure

if TYPE_CHECKING:
    from imgkit.catalogue.facts import InputFacts, Model, Rule

OWN_HOSTS = ("http://127.0.0.1", "http://localhost")
"""The beginnings of the addresses of servers that people run on their own machine."""

PricesKnown = Literal["table", "reply", "own server", "no"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """A provider and its abilities at its own host.

    >>> from imgkit import list_providers
    >>> [info.key_variables for info in list_providers() if info.name == "bfl"]
    [('BFL_API_KEY',)]

    Attributes:
        name: the name for ``provider=``.
        summary: a line about it.
        distribution: the distribution that installs it, "" for imgkit itself.
        base_url: its address, "" if each customer has one.
        key_variables: environment variables that hold its key.
        needs_key: its host refuses requests without a key.
        console: the page that shows keys, None if it is unknown.
        operations: the native operations, with the fields that each takes; None for any field.
        emulates_variations: an edit takes the place of a variation.
        mask: the pixels of its masks that may change; None if it takes no mask.
        max_images_per_request: the most images of a request, None if unknown; imgkit splits larger calls.
        takes_seed: it takes a seed.
        streams: it sends partial images while it draws.
        runs_jobs: it accepts a job, which imgkit polls.
        prices: "table" (known for at least a model), "reply" (the API tells the cost), "own server", or "no".
        facts: the number of confirmed rules and limits, and the number of all.
        unconfirmed: assumptions that nobody has confirmed.
        problem: why it cannot be loaded, None if it can. Then all else is empty.
    """

    name: str
    summary: str = ""
    distribution: str = ""
    base_url: str = ""
    key_variables: tuple[str, ...] = ()
    needs_key: bool = False
    console: str | None = None
    operations: Mapping[Operation, tuple[str, ...] | None] = field(default_factory=dict)
    emulates_variations: bool = False
    mask: str | None = None
    max_images_per_request: int | None = None
    takes_seed: bool = False
    streams: bool = False
    runs_jobs: bool = False
    prices: PricesKnown = "no"
    facts: tuple[int, int] = (0, 0)
    unconfirmed: tuple[str, ...] = ()
    problem: str | None = None


def list_providers(plugins: Sequence[object] = ()) -> tuple[ProviderInfo, ...]:
    """Return all providers, sorted by name. Their classes are imported; nothing is sent.

    >>> from imgkit import list_providers
    >>> "openai" in [info.name for info in list_providers()]
    True

    Args:
        plugins: further plugins, as for `ImageService`.

    Returns:
        imgkit's own providers, and those of plugins. A provider that cannot be loaded has a ``problem``.

    Raises:
        ConfigurationError: a plugin is wrong, or two plugins add providers of the same name.
    """
    specs = load_hook_table(plugins).specs_by_name(ProviderSpec)
    return tuple(map(describe_provider, specs.values()))


def find_provider(name: str) -> NamedSpec[ProviderSpec]:
    """Return the spec of a provider.

    Raises:
        UnknownProviderError: The message has the nearest name, and all names.
    """
    return find_spec(load_hook_table(), ProviderSpec, name, UnknownProviderError, "")


def describe_provider(named: NamedSpec[ProviderSpec]) -> ProviderInfo:
    """Return the abilities of a provider, or the problem of a broken one."""
    info = ProviderInfo(
        name=named.spec.name,
        summary=named.spec.summary,
        distribution="" if named.origin.is_own else named.origin.distribution or named.origin.plugin,
    )
    try:
        provider: Provider = named.make()
        check_provider(provider)
        return _add_abilities(info, provider, Catalogue(named.spec.name, provider.model_facts))
    except ImgkitError as error:
        return replace(info, problem=str(error))
    except Exception as error:
        # The class is another package's: its members may raise anything.
        return replace(info, problem=describe_failure(error))


def list_operations(provider: Provider, catalogue: Catalogue) -> dict[Operation, tuple[str, ...] | None]:
    """Return the native operations at the provider's own host, with the fields that each takes."""
    target = Target(base_url=provider.base_url or "https://imgkit.invalid", host_class="official")
    method = getattr(provider, "list_fields", None)
    operations: dict[Operation, tuple[str, ...] | None] = {}
    for operation in get_args(Operation):
        fields: Collection[str] | None = None if method is None else method(operation, target)
        is_retired = catalogue.find_retirement(operation, "official") is not None
        if fields is None or (fields and not is_retired):
            operations[operation] = None if fields is None else tuple(sorted(fields))
    return operations


def _add_abilities(info: ProviderInfo, provider: Provider, catalogue: Catalogue) -> ProviderInfo:
    operations = list_operations(provider, catalogue)
    edit = operations.get("create_image_edit", ())
    fields = {name for taken in operations.values() for name in taken or ()}
    models = catalogue.list_models()
    limits = list(list_limits(models))
    return replace(
        info,
        base_url=provider.base_url,
        key_variables=tuple(credential.variable for credential in provider.credentials),
        needs_key=any(credential.required for credential in provider.credentials),
        console=catalogue.account.get("console"),
        operations=operations,
        emulates_variations="create_image_variation" not in operations and "create_image_edit" in operations,
        mask=provider.mask_polarity if edit is None or "mask" in edit else None,
        max_images_per_request=_find_max_images(models, catalogue),
        takes_seed="seed" in fields or "seed" in catalogue.options,
        streams=isinstance(provider, StreamingProvider),
        runs_jobs=isinstance(provider, JobProvider),
        prices=_find_prices(provider, models, catalogue),
        facts=(sum(limit.sure for limit in limits), len(limits)),
        unconfirmed=catalogue.unconfirmed,
    )


def list_limits(models: Sequence[Model]) -> Iterator[Rule | InputFacts]:
    """Yield each rule and each limit of inputs once."""
    limits = ((*model.rules, *([model.inputs] if model.inputs else ())) for model in models)
    seen: list[Rule | InputFacts] = []
    for limit in chain.from_iterable(limits):
        if limit not in seen:
            seen.append(limit)
            yield limit


def _find_max_images(models: Sequence[Model], catalogue: Catalogue) -> int | None:
    rules = (rule for model in models for rule in model.rules if rule.field == "n")
    bounds = [int(rule.most) for rule in rules if rule.most is not None]
    return max(bounds, default=catalogue.max_images_per_request)


def _find_prices(provider: Provider, models: Sequence[Model], catalogue: Catalogue) -> PricesKnown:
    if provider.base_url.startswith(OWN_HOSTS):
        return "own server"
    if catalogue.tells_cost:
        return "reply"
    return "table" if any(model.prices is not None for model in models) else "no"
