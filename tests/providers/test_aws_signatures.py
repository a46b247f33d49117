"""Signatures of AWS: equal to those of its own test suite and of botocore 1.44.8."""

from __future__ import annotations

import calendar
import json

import pytest

from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.providers import AwsSigner, BytesBody, HttpRequest, Secret
from imgkit.providers.aws_signatures import ACCESS_KEY, find_region, sign_headers
from imgkit.redact import list_credentials

KEYS = {
    "AWS_ACCESS_KEY_ID": Secret("AKIDEXAMPLE"),
    "AWS_SECRET_ACCESS_KEY": Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
}
NOW = float(calendar.timegm((2026, 11, 28, 12, 0, 0)))
HOST = "https://bedrock-runtime.us-west-2.amazonaws.com"


def build_request(path: str, body: bytes, host: str = HOST) -> HttpRequest:
    """Return a request for a model."""
    headers = {"accept": "application/json", "x-team": "art"}
    return HttpRequest("POST", f"{host}{path}", headers, BytesBody(body, "application/json"))


def read_signature(authorization: str) -> str:
    """Return the digits of a signature."""
    return authorization.rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ("", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ],
)
def test_vectors_of_aws(query: str, signature: str) -> None:
    """Signs get-vanilla and get-vanilla-query-order-key-case as the test suite of AWS does."""
    request = HttpRequest("GET", f"https://example.amazonaws.com/{query}")
    signed = sign_headers(request, {"x-amz-date": "20150830T123600Z"}, KEYS, "us-east-1/service")
    assert signed == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )


def test_vector_of_bedrock() -> None:
    """The path of a model is escaped twice; body, accept and content-type are covered."""
    members = {"prompt": "a mug", "mode": "text-to-image", "aspect_ratio": "1:1", "output_format": "png"}
    body = json.dumps(members, separators=(",", ":")).encode()
    request = build_request("/model/stability.stable-image-core-v1%3A1/invoke", body)
    assert request.body.sha256() == "4e399a0dc7fc1cf8c56604b52ceabe556d47ce41dc6fa5843f7b3d4f7063fe59"
    headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "x-amz-date": "20261128T120000Z",
    }
    signed = sign_headers(request, headers, KEYS, "us-west-2/bedrock")
    assert read_signature(signed) == "ed494d434c7963d7adfb03c39ec9fc750df2a34428e304cbb480ca0260d4b6f8"


BOTOCORE = [
    (
        "https://bedrock-runtime.us-west-2.amazonaws.com/model/us.stability.stable-image-inpaint-v1%3A0/invoke",
        "",
        "520456c307f76ab4a4bd096a6fc17a5aa19f379998fb9b43d89658a499fa8f4e",
    ),
    (
        "https://bedrock-runtime.us-west-2.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Ainference-profile%2Fus.stability.x/invoke",
        "tok/en+==",
        "31961b12c1b194603728b0efdc54f02d5a405e6f21eb6571c2b2400a8396e5ed",
    ),
    (
        "http://127.0.0.1:8080/model/a/invoke?b=2&a=1%20x&a=",
        "",
        "fa391664ecdd14340367ab9a0af30f93717845e791b14feb1920ed8c6a6ddca8",
    ),
]


@pytest.mark.parametrize(("url", "token", "signature"), BOTOCORE)
def test_signatures_of_botocore(url: str, token: str, signature: str) -> None:
    """Signs ids with a profile, ARNs, queries, ports and session tokens as botocore does."""
    keys = {**KEYS, **({"AWS_SESSION_TOKEN": Secret(token)} if token else {})}
    request = build_request("", b'{"prompt": "f\\u00fcchse"}', url)
    headers = AwsSigner("bedrock", "us-west-2", clock=lambda: NOW)(request, keys)
    assert read_signature(headers["authorization"]) == signature
    assert headers.get("x-amz-security-token", "") == token
    assert set(headers) - {"x-amz-security-token"} == {"authorization", "x-amz-content-sha256", "x-amz-date"}


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (HOST, "us-west-2"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://vpce-0a-1b.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("https://us-west-2.example.com", ""),
        ("http://127.0.0.1:8080", ""),
    ],
)
def test_regions_of_hosts(url: str, region: str) -> None:
    """The host of AWS names the region; no other host does."""
    assert find_region(url) == region


def test_a_signature_needs_a_region() -> None:
    """A host without a region is refused, with the remedy."""
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        AwsSigner("bedrock")(build_request("/model/a/invoke", b"{}", "http://127.0.0.1:80"), KEYS)


def test_a_signature_needs_both_keys() -> None:
    """A missing key is named, and the others are not shown."""
    with pytest.raises(MissingKeyError, match="needs AWS_SECRET_ACCESS_KEY") as caught:
        AwsSigner("bedrock")(build_request("/model/a/invoke", b"{}"), {ACCESS_KEY: KEYS[ACCESS_KEY]})
    assert "AKID" not in str(caught.value)


def test_secrets_in_a_signature() -> None:
    """Key id and signature count as secrets; the names of the signed headers are common words."""
    headers = AwsSigner("bedrock", clock=lambda: NOW)(build_request("/model/a/invoke", b"{}"), KEYS)
    found = list_credentials(headers["authorization"])
    assert {"AKIDEXAMPLE", read_signature(headers["authorization"])} <= set(found)
    assert not {"accept", "host", "content-type", "x-amz-date"} & set(found)
    assert "AKID" not in repr(headers)
