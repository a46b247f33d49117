"""API dialects, and all names that authors of a provider need.

A provider encodes an operation as an HTTP request and decodes the reply into images; nothing here does I/O.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from imgkit.images.inputs import ImageFile as ImageFile
    from imgkit.images.inputs import OpenedInputs as OpenedInputs
    from imgkit.images.references import ImageReference as ImageReference
    from imgkit.jobs.job import Job as Job
    from imgkit.models import ImageRequest as ImageRequest
    from imgkit.models import Usage as Usage
    from imgkit.providers.aws_signatures import AwsSigner as AwsSigner
    from imgkit.providers.azure import AzureProvider as AzureProvider
    from imgkit.providers.base import DecodedImage as DecodedImage
    from imgkit.providers.base import DecodedImages as DecodedImages
    from imgkit.providers.base import DecodedPartialImage as DecodedPartialImage
    from imgkit.providers.base import MaskPolarity as MaskPolarity
    from imgkit.providers.base import Provider as Provider
    from imgkit.providers.base import ReplyBody as ReplyBody
    from imgkit.providers.base import StreamingProvider as StreamingProvider
    from imgkit.providers.base import Target as Target
    from imgkit.providers.base_provider import BaseProvider as BaseProvider
    from imgkit.providers.bfl import BflProvider as BflProvider
    from imgkit.providers.comfy_router import ComfyRouterProvider as ComfyRouterProvider
    from imgkit.providers.comfyui import ComfyUIProvider as ComfyUIProvider
    from imgkit.providers.credentials import Credential as Credential
    from imgkit.providers.credentials import RequestSigner as RequestSigner
    from imgkit.providers.error_codes import data_date as data_date
    from imgkit.providers.error_codes import find_meaning as find_meaning
    from imgkit.providers.error_replies import error_from_reply as error_from_reply
    from imgkit.providers.error_replies import refused as refused
    from imgkit.providers.fakes import LOST as LOST
    from imgkit.providers.fakes import FakeApi as FakeApi
    from imgkit.providers.fakes import FakeReply as FakeReply
    from imgkit.providers.fakes import FakeRequest as FakeRequest
    from imgkit.providers.fakes import image_reply as image_reply
    from imgkit.providers.fakes import json_reply as json_reply
    from imgkit.providers.fireworks import FireworksProvider as FireworksProvider
    from imgkit.providers.gemini import GeminiProvider as GeminiProvider
    from imgkit.providers.job_base import ClockProvider as ClockProvider
    from imgkit.providers.job_base import JobProvider as JobProvider
    from imgkit.providers.job_base import PricingProvider as PricingProvider
    from imgkit.providers.job_base import ProgressProvider as ProgressProvider
    from imgkit.providers.job_base import UploadingProvider as UploadingProvider
    from imgkit.providers.job_fakes import FakeJob as FakeJob
    from imgkit.providers.job_fakes import FakeJobApi as FakeJobApi
    from imgkit.providers.job_replies import describe_place as describe_place
    from imgkit.providers.job_replies import explain_poll as explain_poll
    from imgkit.providers.job_replies import unknown_job_error as unknown_job_error
    from imgkit.providers.job_values import JobUpdate as JobUpdate
    from imgkit.providers.job_values import Upload as Upload
    from imgkit.providers.json_requests import add_extra_headers as add_extra_headers
    from imgkit.providers.json_requests import build_json_request as build_json_request
    from imgkit.providers.json_requests import encode_json_request as encode_json_request
    from imgkit.providers.json_requests import list_images as list_images
    from imgkit.providers.json_requests import refuse_more_images as refuse_more_images
    from imgkit.providers.json_requests import refuse_uploaded_files as refuse_uploaded_files
    from imgkit.providers.json_requests import to_base64 as to_base64
    from imgkit.providers.json_requests import to_data_url as to_data_url
    from imgkit.providers.json_requests import to_sides as to_sides
    from imgkit.providers.openai import OpenAIDialect as OpenAIDialect
    from imgkit.providers.openai import OpenAIProvider as OpenAIProvider
    from imgkit.providers.openai_fake import FakeCall as FakeCall
    from imgkit.providers.openai_fake import FakeOpenAI as FakeOpenAI
    from imgkit.providers.replicate import ReplicateProvider as ReplicateProvider
    from imgkit.providers.reply_images import decode_entries as decode_entries
    from imgkit.providers.reply_images import decode_image_body as decode_image_body
    from imgkit.providers.reply_images import read_cost as read_cost
    from imgkit.providers.reply_images import readable as readable
    from imgkit.redact import Secret as Secret
    from imgkit.wire.json_values import DivertedImage as DivertedImage
    from imgkit.wire.json_values import decode_base64 as decode_base64
    from imgkit.wire.messages import BytesBody as BytesBody
    from imgkit.wire.messages import Head as Head
    from imgkit.wire.messages import HttpRequest as HttpRequest
    from imgkit.wire.multipart import Field as Field
    from imgkit.wire.multipart import File as File
    from imgkit.wire.multipart import MultipartBody as MultipartBody

_EXPORTS = {
    "imgkit.images.inputs": (
        "ImageFile",
        "OpenedInputs",
    ),
    "imgkit.images.references": ("ImageReference",),
    "imgkit.jobs.job": ("Job",),
    "imgkit.models": (
        "ImageRequest",
        "Usage",
    ),
    "imgkit.providers.aws_signatures": ("AwsSigner",),
    "imgkit.providers.azure": ("AzureProvider",),
    "imgkit.providers.base": (
        "DecodedImage",
        "DecodedImages",
        "DecodedPartialImage",
        "MaskPolarity",
        "Provider",
        "ReplyBody",
        "StreamingProvider",
        "Target",
    ),
    "imgkit.providers.base_provider": ("BaseProvider",),
    "imgkit.providers.bfl": ("BflProvider",),
    "imgkit.providers.comfy_router": ("ComfyRouterProvider",),
    "imgkit.providers.comfyui": ("ComfyUIProvider",),
    "imgkit.providers.credentials": (
        "Credential",
        "RequestSigner",
    ),
    "imgkit.providers.error_codes": (
        "data_date",
        "find_meaning",
    ),
    "imgkit.providers.error_replies": (
        "error_from_reply",
        "refused",
    ),
    "imgkit.providers.fakes": (
        "FakeApi",
        "FakeReply",
        "FakeRequest",
        "LOST",
        "image_reply",
        "json_reply",
    ),
    "imgkit.providers.fireworks": ("FireworksProvider",),
    "imgkit.providers.gemini": ("GeminiProvider",),
    "imgkit.providers.job_base": (
        "ClockProvider",
        "JobProvider",
        "PricingProvider",
        "ProgressProvider",
        "UploadingProvider",
    ),
    "imgkit.providers.job_fakes": (
        "FakeJob",
        "FakeJobApi",
    ),
    "imgkit.providers.job_replies": (
        "describe_place",
        "explain_poll",
        "unknown_job_error",
    ),
    "imgkit.providers.job_values": (
        "JobUpdate",
        "Upload",
    ),
    "imgkit.providers.json_requests": (
        "add_extra_headers",
        "build_json_request",
        "encode_json_request",
        "list_images",
        "refuse_more_images",
        "refuse_uploaded_files",
        "to_base64",
        "to_data_url",
        "to_sides",
    ),
    "imgkit.providers.openai": ("OpenAIDialect", "OpenAIProvider"),
    "imgkit.providers.openai_fake": (
        "FakeCall",
        "FakeOpenAI",
    ),
    "imgkit.providers.replicate": ("ReplicateProvider",),
    "imgkit.providers.reply_images": (
        "decode_entries",
        "decode_image_body",
        "read_cost",
        "readable",
    ),
    "imgkit.redact": ("Secret",),
    "imgkit.wire.json_values": (
        "DivertedImage",
        "decode_base64",
    ),
    "imgkit.wire.messages": (
        "BytesBody",
        "Head",
        "HttpRequest",
    ),
    "imgkit.wire.multipart": (
        "Field",
        "File",
        "MultipartBody",
    ),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
