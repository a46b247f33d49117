"""imgkit creates, edits and varies images through a backend that you choose at run time.

>>> from imgkit import ImageService
>>> with ImageService() as images:                     # offline: no key, no network, no cost
...     otter = images.create_image("A cute baby sea otter", size="256x256")
>>> otter[0].format, otter[0].width
('png', 256)

Names are loaded when they are first used, so ``import imgkit`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module as _import_module

from imgkit._version import __version__ as __version__

_EXPORTS = {
    "imgkit.cache.memory": ("MemoryStore",),
    "imgkit.core.recovery": ("recover",),
    "imgkit.default_plugins.auth": (
        "BearerAuth",
        "HeaderAuth",
        "SignatureAuth",
        "TokenAuth",
    ),
    "imgkit.default_plugins.budget": ("Budget",),
    "imgkit.default_plugins.caching": ("CachePlugin",),
    "imgkit.default_plugins.keys": (
        "FileKey",
        "KeyringKey",
    ),
    "imgkit.default_plugins.logging": ("LoggingPlugin",),
    "imgkit.default_plugins.recorder": ("RecorderPlugin",),
    "imgkit.default_plugins.retry": ("RetryPlugin",),
    "imgkit.default_plugins.spool": (
        "SpoolPlugin",
        "open_spool",
    ),
    "imgkit.default_plugins.telemetry": ("TelemetryPlugin",),
    "imgkit.errors": (
        "ApiError",
        "AuthenticationError",
        "BadRequestError",
        "BillingLimitError",
        "BudgetExceededError",
        "CacheMissError",
        "ConfigurationError",
        "ConflictError",
        "DownloadBlockedError",
        "DownloadError",
        "EmptyResultError",
        "EndpointRetiredError",
        "FixtureMissingError",
        "ImgkitError",
        "InvalidImageError",
        "InvalidRequestError",
        "JobFailedError",
        "JobPendingError",
        "LinkExpiredError",
        "MissingKeyError",
        "MissingModelError",
        "ModelNotFoundError",
        "ModelRetiredError",
        "ModerationBlockedError",
        "NotDownloadedError",
        "NotFoundError",
        "NotSentError",
        "OrganizationNotVerifiedError",
        "OutcomeUnknownError",
        "PermissionDeniedError",
        "PluginError",
        "PluginWarning",
        "QuotaExceededError",
        "RateLimitError",
        "RedirectRefusedError",
        "SaveError",
        "ServerError",
        "ServiceClosedError",
        "StreamError",
        "TransportError",
        "UnknownBackendError",
        "UnknownParameterError",
        "UnknownPluginError",
        "UnknownProviderError",
        "UnreadableReplyError",
        "UnsupportedMediaTypeError",
    ),
    "imgkit.images.image": ("Image",),
    "imgkit.images.references": ("ImageReference",),
    "imgkit.bulk.rows": ("BulkRequest",),
    "imgkit.bulk.bulk_values": ("BulkOutcome", "BulkProgress"),
    "imgkit.jobs.job": ("Job",),
    "imgkit.models": (
        "Attempt",
        "Completed",
        "Cost",
        "CreateImageEditRequest",
        "CreateImageRequest",
        "CreateImageVariationRequest",
        "Estimate",
        "ImageInput",
        "ImagesResponse",
        "Meta",
        "PartialImage",
        "Usage",
    ),
    "imgkit.plugins.hookspecs": ("hookimpl",),
    "imgkit.providers.listing": (
        "ProviderInfo",
        "list_providers",
    ),
    "imgkit.runtime.streams": (
        "AsyncImageStream",
        "ImageStream",
    ),
    "imgkit.async_service": ("AsyncImageService",),
    "imgkit.service": ("ImageService",),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
_MODULES = ("masks",)

__all__ = sorted(["__version__", *_HOMES, *_MODULES])


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"imgkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'imgkit' has no attribute {name!r}")
    value = getattr(_import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
