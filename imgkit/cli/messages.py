"""The library speaks of Python; the command line repeats it in its own words."""

from __future__ import annotations

import re

from imgkit.cli import options
from imgkit.errors import ApiError, ImgkitError, InvalidRequestError, TransportError

# The process ends here, so nothing is "still in memory"; `imgkit.cli.salvage` says where it is instead.
_INSTEAD = {
    " error.body holds the reply.": "",
    "; error.images has the pictures that did arrive. Try create_image, which needs no stream": (
        ". Try without --stream"
    ),
    ". The whole reply is in error.response": "",
    " The image is still in image.data. Free some space or choose another place, and call image.save "
    "again.": "",
    ": try image.data or service.download(image) again before its link expires": "",
    ". The URL is in image.url": "",
    "Call stream_image or stream_image_edit for a stream.": "Use --stream.",
    "Call stream_image(…, partial_images=2).": "Use --partial-images N.",
    "; use save_to=… to fetch at once": "",
    ", or pass an instance": "",
    ", a folder, or an ssl.SSLContext": " or a folder",
    "Budget(allow_unknown=True)": "--allow-unknown-price",
    "usd must be": "--max-cost must be",
    "client_options: simulate": "--simulate",
    "client_options: latency_s": "--latency",
}


def message(error: ImgkitError) -> str:
    """Return what an error says, with options in place of Python arguments, a line for each problem."""
    if isinstance(error, TransportError) or (isinstance(error, ApiError) and error.status):
        return str(error)  # these are the words of a server or a network
    names = options.names()
    if isinstance(error, InvalidRequestError):
        places = {_place(path, names): _translated(text, names) for path, text in error.fields.items()}
        return "\n".join(f"{place}: {text}" for place, text in places.items())
    return _translated(str(error), names)


def _place(path: str, names: dict[str, str]) -> str:
    name, _, rest = path.partition(".")
    if name == "image" and rest.isdigit():
        return f"IMAGE {int(rest) + 1}"
    return names.get(name, name) + (f" {rest}" if rest else "")


def _translated(text: str, names: dict[str, str]) -> str:
    for phrase, other in _INSTEAD.items():
        text = text.replace(phrase, other)
    known = "|".join(sorted(names, key=len, reverse=True))

    def argument(found: re.Match[str]) -> str:
        value = found[2].strip("\"'")
        return names[found[1]] if value == "True" else f"{names[found[1]]} {value}"

    text = re.sub(rf"\b({known})=(\"[^\"]*\"|'[^']*'|…|\{{…\}}|True)", argument, text)
    text = re.sub(rf"^({known}):", lambda found: f"{names[found[1]]}:", text)
    # Names with an underscore are never plain words, but may be part of a path.
    compound = "|".join(name for name in names if "_" in name)
    return re.sub(rf"(?<![\w'\"{{/.-])({compound})(?![\w/-]|\.\w)", lambda found: names[found[1]], text)
