"""imgkit creates, edits and varies images through whatever backend is chosen at run time.

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

TYPE_CHECKING = False  # known to type checkers; importing typing would be most of what `import imgkit` costs

if TYPE_CHECKING:
    from typing import Any

    from imgkit import masks as masks
    from imgkit.default_plugins.budget import Budget as Budget
    from imgkit.default_plugins.cache import CachePlugin as CachePlugin
    from imgkit.default_plugins.recorder import RecorderPlugin as RecorderPlugin
    from imgkit.default_plugins.retry import RetryPlugin as RetryPlugin
    from imgkit.errors import ApiError as ApiError
    from imgkit.errors import AuthenticationError as AuthenticationError
    from imgkit.errors import BadRequestError as BadRequestError
    from imgkit.errors import BillingLimitError as BillingLimitError
    from imgkit.errors import BudgetExceededError as BudgetExceededError
    from imgkit.errors import CacheMissError as CacheMissError
    from imgkit.errors import ConfigurationError as ConfigurationError
    from imgkit.errors import ConflictError as ConflictError
    from imgkit.errors import DownloadBlockedError as DownloadBlockedError
    from imgkit.errors import DownloadError as DownloadError
    from imgkit.errors import EmptyResultError as EmptyResultError
    from imgkit.errors import EndpointRetiredError as EndpointRetiredError
    from imgkit.errors import FixtureMissingError as FixtureMissingError
    from imgkit.errors import ImgkitError as ImgkitError
    from imgkit.errors import InvalidImageError as InvalidImageError
    from imgkit.errors import InvalidRequestError as InvalidRequestError
    from imgkit.errors import LinkExpiredError as LinkExpiredError
    from imgkit.errors import MissingKeyError as MissingKeyError
    from imgkit.errors import MissingModelError as MissingModelError
    from imgkit.errors import ModelNotFoundError as ModelNotFoundError
    from imgkit.errors import ModelRetiredError as ModelRetiredError
    from imgkit.errors import ModerationBlockedError as ModerationBlockedError
    from imgkit.errors import NotDownloadedError as NotDownloadedError
    from imgkit.errors import NotFoundError as NotFoundError
    from imgkit.errors import NotSentError as NotSentError
    from imgkit.errors import OrganizationNotVerifiedError as OrganizationNotVerifiedError
    from imgkit.errors import OutcomeUnknownError as OutcomeUnknownError
    from imgkit.errors import PermissionDeniedError as PermissionDeniedError
    from imgkit.errors import PluginError as PluginError
    from imgkit.errors import QuotaExceededError as QuotaExceededError
    from imgkit.errors import RateLimitError as RateLimitError
    from imgkit.errors import RedirectRefusedError as RedirectRefusedError
    from imgkit.errors import SaveError as SaveError
    from imgkit.errors import ServerError as ServerError
    from imgkit.errors import ServiceClosedError as ServiceClosedError
    from imgkit.errors import StreamError as StreamError
    from imgkit.errors import TransportError as TransportError
    from imgkit.errors import UnknownBackendError as UnknownBackendError
    from imgkit.errors import UnknownParameterError as UnknownParameterError
    from imgkit.errors import UnknownPluginError as UnknownPluginError
    from imgkit.errors import UnknownProviderError as UnknownProviderError
    from imgkit.errors import UnreadableReplyError as UnreadableReplyError
    from imgkit.errors import UnsupportedMediaTypeError as UnsupportedMediaTypeError
    from imgkit.images.image import Image as Image
    from imgkit.images.inputs import ImageReference as ImageReference
    from imgkit.models import Attempt as Attempt
    from imgkit.models import Completed as Completed
    from imgkit.models import Cost as Cost
    from imgkit.models import CreateImageEditRequest as CreateImageEditRequest
    from imgkit.models import CreateImageRequest as CreateImageRequest
    from imgkit.models import CreateImageVariationRequest as CreateImageVariationRequest
    from imgkit.models import Estimate as Estimate
    from imgkit.models import ImageInput as ImageInput
    from imgkit.models import ImagesResponse as ImagesResponse
    from imgkit.models import Meta as Meta
    from imgkit.models import PartialImage as PartialImage
    from imgkit.models import Usage as Usage
    from imgkit.plugins.hookspecs import hookimpl as hookimpl
    from imgkit.runtime.streams import AsyncImageStream as AsyncImageStream
    from imgkit.runtime.streams import ImageStream as ImageStream
    from imgkit.service import AsyncImageService as AsyncImageService
    from imgkit.service import ImageService as ImageService

_ERRORS = (
    "ApiError", "AuthenticationError", "BadRequestError", "BillingLimitError", "BudgetExceededError",
    "CacheMissError", "ConfigurationError", "ConflictError", "DownloadBlockedError", "DownloadError",
    "EmptyResultError", "EndpointRetiredError", "FixtureMissingError", "ImgkitError", "InvalidImageError",
    "InvalidRequestError", "LinkExpiredError", "MissingKeyError", "MissingModelError", "ModelNotFoundError",
    "ModelRetiredError", "ModerationBlockedError", "NotDownloadedError", "NotFoundError", "NotSentError",
    "OrganizationNotVerifiedError", "OutcomeUnknownError", "PermissionDeniedError", "PluginError",
    "QuotaExceededError", "RateLimitError", "RedirectRefusedError", "SaveError", "ServerError",
    "ServiceClosedError", "StreamError", "TransportError", "UnknownBackendError", "UnknownParameterError",
    "UnknownPluginError", "UnknownProviderError", "UnreadableReplyError", "UnsupportedMediaTypeError",
)  # fmt: skip
_HOME = {
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(
        ("Attempt", "CreateImageEditRequest", "CreateImageRequest", "CreateImageVariationRequest",
         "ImageInput", "ImagesResponse", "Meta", "Usage"), "models"),
    "Cost": "money",
    "Estimate": "money",
    "Image": "images.image",
    "ImageReference": "images.references",
    "Budget": "default_plugins.budget",
    "CachePlugin": "default_plugins.cache",
    "RecorderPlugin": "default_plugins.recorder",
    "RetryPlugin": "default_plugins.retry",
    "hookimpl": "plugins.hookspecs",
    "AsyncImageService": "service",
    "ImageService": "service",
    **dict.fromkeys(("Completed", "PartialImage"), "stream_events"),
    **dict.fromkeys(("AsyncImageStream", "ImageStream"), "runtime.streams"),
}  # fmt: skip
_MODULES = ("masks",)

__all__ = sorted(["__version__", *_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _import_module(f"imgkit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'imgkit' has no attribute {name!r}")
    value = getattr(_import_module(f"imgkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
