"""Error messages in the words of the command line: option names, and remedies that a shell user can apply."""

from __future__ import annotations

import re
import shlex

from imgkit import errors
from imgkit.cli import options
from imgkit.errors import ImgkitError, InvalidRequestError

AS_OPTIONS = "(the hint of the error, with options in place of arguments)"
"""A remedy in `REMEDIES`: the hint names values that only the error knows."""

# Empty where the command needs no remedy: it saves every image, and salvages paid data by itself.
REMEDIES: dict[tuple[type[ImgkitError], str | None], str] = {
    (errors.CacheMissError, None): "Repair the cache, or run the command without --cache only.",
    (errors.CacheMissError, "cache"): "Run the command without --cache only to have one made.",
    (errors.ConfigurationError, "allow_insecure"): "Or pass --allow-insecure on a network that you trust.",
    (errors.ConfigurationError, "allow_unknown"): (
        "Give its prices with --models FILE, or pass --price-per-image USD or --allow-unknown-price."
    ),
    (errors.ConfigurationError, "account_id"): "Set CLOUDFLARE_ACCOUNT_ID.",
    (errors.ConfigurationError, "api_version"): "Set OPENAI_API_VERSION.",
    (errors.ConfigurationError, "backend"): "Pass --backend requests or --backend aiohttp.",
    (errors.ConfigurationError, "ca"): "Pass a PEM file or a folder prepared by openssl rehash.",
    (errors.ConfigurationError, "cache"): "Leave out --cache only.",
    (errors.ConfigurationError, "extend"): (
        "Give another output folder, or pass --extend to add the rows to that run."
    ),
    (errors.ConfigurationError, "run_folder"): (
        "Pass --run FOLDER on a local disk. The images may stay where they are."
    ),
    (errors.DownloadBlockedError, None): (
        "If you trust its server, pass --download-origin ORIGIN. Or pass --response-format b64_json to get "
        "the image in the reply."
    ),
    (errors.DownloadError, None): "",
    (errors.DownloadError, "max_download_bytes"): "Pass a larger --max-download-bytes to fetch it.",
    (errors.EmptyResultError, None): "Ask the provider for the result. Do not send the request again.",
    (errors.EndpointRetiredError, None): (
        "Pass --strategy auto or --strategy emulate to edit the image with a prompt instead."
    ),
    (errors.FixtureMissingError, None): "Record it.",
    (errors.InvalidRequestError, "extra_body.partial_images"): "Pass --partial-images N for partial images.",
    (errors.InvalidRequestError, "extra_body.stream"): "Pass --stream for a stream.",
    (errors.InvalidRequestError, "extra_body"): (
        "Pass --extra-body JSON for a value that only your server knows."
    ),
    (errors.InvalidRequestError, "job"): "`imgkit jobs wait` collects it.",
    (errors.InvalidRequestError, "masks"): "",
    (errors.InvalidRequestError, "model_options"): "--extra-body JSON sends members without a check.",
    (errors.InvalidRequestError, "on_unsupported"): (
        "Pass --on-unsupported drop to leave such fields out, or --on-unsupported adapt for what the model "
        "takes instead."
    ),
    (errors.InvalidRequestError, "prepare"): (
        "Or pass --prepare fit to have it converted (of an animation, the first frame)."
    ),
    (errors.InvalidRequestError, "reference"): "",
    (errors.JobPendingError, None): "`imgkit jobs ls` lists it, and `imgkit jobs wait` collects it.",
    (errors.MissingKeyError, None): (
        "Set it, pass --api-key-file FILE, or stay offline with --backend offline."
    ),
    (errors.MissingKeyError, "provider"): (
        "Set the variable: keys of other providers than that of the command come from there."
    ),
    (errors.MissingModelError, None): "Pass --model NAME or set IMGKIT_MODEL.",
    (errors.NotDownloadedError, None): "",
    (
        errors.NotSentError,
        "ca",
    ): "If you trust its authority, pass the authority's certificate with --ca FILE.",
    (errors.NotSentError, "retry"): "Wait, or pass --no-retry to send at once.",
    (errors.SaveError, None): "",
    (errors.StreamError, None): "Try again without --stream.",
    (errors.UnknownBackendError, None): "Install a plugin that provides it.",
    (errors.UnknownBackendError, "name"): AS_OPTIONS,
    (errors.UnknownBackendError, "plugin"): "",
    (errors.UnknownBackendError, "provider"): AS_OPTIONS,
    (errors.UnknownProviderError, None): "A server that speaks OpenAI's dialect needs only --base-url URL.",
    (errors.UnknownProviderError, "backend"): AS_OPTIONS,
    (errors.UnknownProviderError, "name"): AS_OPTIONS,
    (errors.UnknownProviderError, "plugin"): "",
    (errors.UnreadableReplyError, None): "",
    (errors.UnreadableReplyError, "max_reply_bytes"): (
        "Ask for fewer or smaller images, or pass a larger --max-reply-bytes."
    ),
}
"""Remedies by error class and by `ImgkitError.field`; None stands for any field."""

_OTHER_NAMES = {
    "image": "IMAGE",
    "prompt": "PROMPT",
    "save_to": "--output",
    "api_key": "--api-key-file",
    "usd": "--max-cost",
    "price_per_image": "--price-per-image",
    "amend": "--amend",
}
"""Names on the command line of parameters that are not an option of the same name."""


_ARGUMENT = re.compile(r"(?<= )[a-z]+(?:_[a-z]+)+(?=[ ,:;]|\.?(?:\s|$))")
"""A word in a sentence that may be an argument, such as ``base_url``. No other word has an underscore."""


def option_names() -> dict[str, str]:
    """Return the option of each library parameter, such as ``{"timeout_s": "--timeout"}``."""
    known = [
        *options.service_options(),
        *options.offline_options(),
        *options.variation_options(),
        *options.stream_options(),
        *options.cache_options(),
    ]
    known.append(options.prepare_option())
    for kind in options.REQUESTS:
        known += options.request_options(kind)
    names = {str(option.name): option.opts[0] for option in known}
    client_options = {f"client_options.{option.name}": option.opts[0] for option in options.offline_options()}
    return {**names, **client_options, **_OTHER_NAMES}


def format_error(error: ImgkitError) -> str:
    """Return the message of an error: a line per problem, with option names and the command's remedies."""
    names = option_names()
    if isinstance(error, InvalidRequestError):
        lines = [f"{_format_place(path, names)}: {to_options(text)}" for path, text in error.fields.items()]
        remedies = (find_remedy(type(error), name, hint) for name, hint in error.hints.items())
        return "\n".join([*lines, *filter(None, remedies)])
    problem, remedy = error.problem, _find_error_remedy(error)
    if error.field and error.field in names:
        problem = _name_option(problem, error.field, names[error.field])
    remedy = _ARGUMENT.sub(lambda name: names.get(name[0], name[0]), remedy)
    if getattr(error, "status", None) is None:  # the words of a server stay as they are
        problem = _ARGUMENT.sub(lambda name: names.get(name[0], name[0]), problem)
    return f"{problem} {remedy}".rstrip()


def describe_error(error: ImgkitError) -> dict[str, object]:
    """Return the remedy and the options that an error is about, for a program that reads them."""
    names = option_names()
    if isinstance(error, InvalidRequestError):
        remedies = [find_remedy(type(error), name, hint) for name, hint in error.hints.items()]
        return {
            "hint": " ".join(filter(None, remedies)) or None,
            "field": next(iter(error.fields), None),
            "fields": {
                path: f"{_format_place(path, names)}: {to_options(text)}"
                for path, text in error.fields.items()
            },
        }
    return {"hint": _find_error_remedy(error) or None, "field": error.field}


def find_remedy(kind: type[ImgkitError], field: str | None, hint: str) -> str:
    """Return the command's remedy for a class of errors, the hint of the error if there is none.

    Args:
        kind: the class of the error; its base classes are tried after it.
        field: `ImgkitError.field`, or a key of `InvalidRequestError.hints`.
        hint: the remedy in terms of the Python API.
    """
    for base in kind.__mro__:
        for key in ((base, field), (base, None)):
            if key in REMEDIES:
                return to_options(hint) if REMEDIES[key] is AS_OPTIONS else REMEDIES[key]
    return to_options(hint)


def to_options(hint: str) -> str:
    """Return a hint with options in place of arguments of the Python API.

    Example:
        >>> to_options('Pass base_url="http://localhost:1/v1", allow_insecure=True or ca="my ca.pem".')
        "Pass --base-url http://localhost:1/v1, --allow-insecure or --ca 'my ca.pem'."
        >>> to_options("Pass aspect_ratio='16:9' and resolution='2K'.")
        'Pass --aspect-ratio 16:9 and --resolution 2K.'
    """
    names = option_names()

    def replace(match: re.Match[str]) -> str:
        option = names.get(match[1])
        if option is None:
            return match[0]
        return option if match[4] == "True" else f"{option} {shlex.quote(match[2] or match[3] or match[4])}"

    return re.sub(r"""\b(\w+)=(?:"([^"]+)"|'([^']+)'|(True\b|\d+))""", replace, hint)


def format_text(text: str) -> str:
    """Return the text of an error of the library with the names of options, such as one that was kept.

    Example:
        >>> format_text("NotSentError: Could not connect. Check base_url.")
        'NotSentError: Could not connect. Check --base-url.'
    """
    names = option_names()
    return _ARGUMENT.sub(lambda name: names.get(name[0], name[0]), to_options(text))


def _find_error_remedy(error: ImgkitError) -> str:
    if isinstance(error, errors.SaveError) and isinstance(error.__cause__, ImgkitError):
        return _find_error_remedy(error.__cause__)  # the reason why an image of the call was not saved
    if isinstance(error, errors.DownloadBlockedError) and error.origin is not None and error.hint:
        remedy = find_remedy(type(error), error.field, error.hint)
        return remedy.replace(" ORIGIN", f" {shlex.quote(error.origin)}")
    if error.field == "base_url" and isinstance(error, errors.NotSentError):
        return _name_option(error.hint or "", error.field, "--base-url")
    if isinstance(error, errors.ApiError) and error.status and error.hint:
        # The remedy for a reply is the same in the library and in the command.
        names = option_names()
        return _ARGUMENT.sub(lambda name: names.get(name[0], name[0]), to_options(error.hint))
    return find_remedy(type(error), error.field, error.hint) if error.hint else ""


def _name_option(problem: str, field: str, option: str) -> str:
    """Return a problem with the name of an option in place of the name of an argument.

    A name with an underscore is replaced wherever it stands. Other names may be plain words, and are
    replaced at the start only.

    Example:
        >>> _name_option("Invalid key from api_key.", "api_key", "--api-key-file")
        'Invalid key from --api-key-file.'
        >>> _name_option('cache="only" is given.', "cache", "--cache")
        '--cache only is given.'
        >>> _name_option("The API needs a model.", "model", "--model")
        'The API needs a model.'
    """
    start = "" if "_" in field else "^"
    pattern = rf'{start}(?<![\w/.])({re.escape(field)})(?:="([^"]*)"|(?![\w/]))'
    return re.sub(pattern, lambda name: f"{option} {name[2]}" if name[2] else option, problem, count=1)


def _format_place(path: str, names: dict[str, str]) -> str:
    name, _, rest = path.partition(".")
    if name == "image" and rest.isdigit():
        return f"IMAGE {int(rest) + 1}"
    return names.get(name, name) + (f" {rest}" if rest else "")
