"""Writing pictures to disk: never over another file, never half, with the story beside it."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from imgkit.errors import InvalidRequestError, ReceivedImage, SaveError
from imgkit.images.part_files import PartFile
from imgkit.images.sniff import EXTENSIONS, Format
from imgkit.images.sources import BytesSource, FileSource, Source, blocks

PATTERN_FIELDS = ("index", "slug", "ext", "digest", "operation", "model")
SIDECAR_MARK = "imgkit_sidecar"
SIDECAR_VERSION = 1

_KNOWN_EXTENSIONS = {extension for names in EXTENSIONS.values() for extension in names}
_MOST_NAMES = 10_000
_MOST_SIDECAR_BYTES = 64 * 1024 * 1024
_SLUG_CHARACTERS = 48
_DIGEST_CHARACTERS = 12
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # no file can have such a name on Windows
_SPEC = re.compile(r"[<>^]?\d{0,2}[ds]?")
_LONGEST: Mapping[str, Any] = {
    "index": 99,
    "slug": "x" * _SLUG_CHARACTERS,
    "ext": "webp",
    "digest": "0" * _DIGEST_CHARACTERS,
    "operation": "x" * _SLUG_CHARACTERS,
    "model": "x" * _SLUG_CHARACTERS,
}
_MOST_ADDED = "-9999.webp.json"
"""What writing may add to a name: a number, the right extension, and that of a sidecar."""


class SavableImage(ReceivedImage, Protocol):
    """The parts of an `imgkit.Image` that saving reads."""

    @property
    def source(self) -> Source:
        """Where the bytes are."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Values for the name and the sidecar."""

    @property
    def revised_prompt(self) -> str | None:
        """The prompt as the model rewrote it."""

    @property
    def format(self) -> Format | None:
        """The file format of the bytes."""

    @property
    def width(self) -> int | None:
        """Width in pixels."""

    @property
    def height(self) -> int | None:
        """Height in pixels."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""


@dataclass(frozen=True, slots=True)
class SavePlan:
    """Where the pictures of a call go.

    Attributes:
        folder: the folder that names are relative to.
        pattern: format string of a file name below it, with the fields of `PATTERN_FIELDS`.
        make_folder: the folder may be made; the folder of a plain file must exist.
        overwrite: replace existing files instead of taking the next free name.
        sidecar: write a JSON sidecar beside each picture.
    """

    folder: Path
    pattern: str
    make_folder: bool
    overwrite: bool = False
    sidecar: bool = True

    @classmethod
    def of(cls, target: str | PathLike[str], *, overwrite: bool = False, sidecar: bool = True) -> SavePlan:
        """Read a target as callers write it.

        Args:
            target: an existing folder, or a path that ends with a slash, is a folder; text with
                ``{…}`` is a pattern; anything else is a file.
            overwrite: see the class.
            sidecar: see the class.

        Raises:
            InvalidRequestError: not a path, or a pattern with unknown fields.
        """
        try:
            text = os.fspath(target)
        except TypeError:
            text = None
        if not isinstance(text, str) or "\0" in text:
            raise InvalidRequestError({"save_to": "give a path as str or os.PathLike"})
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            raise InvalidRequestError({"save_to": f"{text[:200]!r} cannot be a path here"}) from None
        if "{" in text or "}" in text:
            _check_pattern(text)
            folder = os.path.dirname(re.split("[{}]", text, maxsplit=1)[0])
            return cls(Path(folder), text[len(folder) :].lstrip("/" + os.sep), True, overwrite, sidecar)
        path = Path(text)
        if not text or text.endswith(("/", os.sep)) or os.path.isdir(text):
            return cls(path, "{slug}", True, overwrite, sidecar)
        if not path.name.strip("."):
            raise InvalidRequestError({"save_to": f"{text!r} is not a file name"})
        return cls(path.parent, _escape(path.name), False, overwrite, sidecar)

    def check(self) -> None:
        """Make sure that files can be written there, before anything is spent.

        Raises:
            InvalidRequestError: the folder is missing or cannot be written to, or a name does not fit.
        """
        probe = self.folder / f".imgkit-{secrets.token_hex(8)}.part"
        try:
            if self.make_folder:
                self.folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            probe.unlink()
            for part in Path(self.pattern.format(**_LONGEST) + _MOST_ADDED).parts:
                _probe_name(self.folder / part)
        except OSError as error:
            hint = (
                "make the folder first, or end the path with a slash to have it made"
                if isinstance(error, FileNotFoundError) and not self.make_folder
                else "choose another place"
            )
            raise InvalidRequestError(
                {"save_to": f"cannot write in {str(self.folder)!r} ({error.strerror}): {hint}"}
            ) from None

    def write(self, image: SavableImage, count: int) -> Path:
        """Write one picture and its sidecar.

        Args:
            image: the picture; its `index` and `about` go into the name and the sidecar.
            count: how many pictures the call has; with several, a name without ``{index}`` gets a number.

        Returns:
            The path written.

        Raises:
            NotDownloadedError, DownloadError: the bytes are not here.
            SaveError: the file could not be written.
        """
        digest = image.sha256 if self.needs_digest else ""
        wanted = self._path(image, digest, count)
        story = sidecar_json(image, digest) if self.sidecar else None
        try:
            if self.make_folder:
                wanted.parent.mkdir(parents=True, exist_ok=True)
            return self._publish(wanted, image, story)
        except OSError as error:
            raise SaveError(
                f"cannot write {str(wanted)!r} ({error.strerror or error}): the picture is still in "
                "image.data; free some space or choose another place, and call image.save again",
                images=(image,),
            ) from None

    @property
    def needs_digest(self) -> bool:
        """Whether the SHA-256 of each picture goes into a sidecar or a name."""
        return self.sidecar or "digest" in _fields(self.pattern)

    def _path(self, image: SavableImage, digest: str, count: int) -> Path:
        about = image.about
        format = image.format
        extension = EXTENSIONS[format][0] if format else ".bin"
        name = self.pattern.format(
            index=image.index + 1,
            slug=slug(str(about.get("prompt") or about.get("operation") or "image")),
            ext=extension[1:],
            digest=digest[:_DIGEST_CHARACTERS],
            operation=slug(str(about.get("operation") or "image")),
            model=slug(str(about.get("model") or "default")),
        )
        path = with_extension(self.folder / name, format)
        if count > 1 and "index" not in _fields(self.pattern):
            path = path.with_name(f"{path.stem}-{image.index + 1}{path.suffix}")
        return path

    def _publish(self, wanted: Path, image: SavableImage, story: bytes | None) -> Path:
        picture = image.source
        if self.overwrite:
            if story is not None and not may_replace(sidecar_path(wanted)):
                raise SaveError(
                    f"{str(sidecar_path(wanted))!r} exists and is not a sidecar of imgkit: choose another "
                    "name, or save with sidecar=False",
                    images=(image,),
                )
            _write(wanted, picture, os.replace)
            if story is not None:
                _write(sidecar_path(wanted), BytesSource(story), os.replace)
            _sync_folder(wanted.parent)
            return wanted
        stem, suffix = os.path.join(wanted.parent, wanted.stem), wanted.suffix
        for number in range(1, _MOST_NAMES):
            name = str(wanted) if number == 1 else f"{stem}-{number}{suffix}"
            # As text: among many pictures of one name, most of what saving costs would be paths.
            if os.path.lexists(name) or (story is not None and os.path.lexists(f"{name}.json")):
                continue
            path = Path(name)
            try:
                _write(path, picture, _link)
            except FileExistsError:
                continue  # somebody else took the name just now
            try:
                if story is not None:
                    _write(sidecar_path(path), BytesSource(story), _link)
            except OSError as error:
                _take_back(path, picture)
                if isinstance(error, FileExistsError):
                    continue
                raise
            _sync_folder(path.parent)
            return path
        raise SaveError(
            f"{_MOST_NAMES} files like {str(wanted)!r} exist: choose another name", images=(image,)
        )


def with_extension(path: Path, format: Format | None) -> Path:
    """Return `path` with the extension that belongs to `format`; a right one is kept as it is."""
    if format is None:
        return path if path.suffix.lower() == ".bin" else path.with_name(path.name + ".bin")
    if path.suffix.lower() in EXTENSIONS[format]:
        return path
    if path.suffix.lower() in _KNOWN_EXTENSIONS:
        return path.with_suffix(EXTENSIONS[format][0])
    return path.with_name(path.name + EXTENSIONS[format][0])


def slug(text: str, limit: int = _SLUG_CHARACTERS) -> str:
    """Return `text` as a safe piece of a file name: a-z, 0-9 and "-", at most `limit` characters."""
    plain = unicodedata.normalize("NFKD", text[: limit * 8]).encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].rstrip("-")
    return f"image-{short}" if _DEVICE.fullmatch(short) else short or "image"


def _escape(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _probe_name(path: Path) -> None:
    """Raise OSError where a name cannot exist there, such as one that is too long."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return


def _fields(pattern: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None}


def _check_pattern(text: str) -> None:
    try:
        fits = all(
            field is None or (field in PATTERN_FIELDS and not conversion and _SPEC.fullmatch(spec or ""))
            for _, field, spec, conversion in string.Formatter().parse(text)
        )
        if fits:
            text.format(**_LONGEST)
    except ValueError:
        fits = False
    if not fits:
        names = ", ".join(f"{{{name}}}" for name in PATTERN_FIELDS)
        problem = f"a pattern may hold {names}, and widths as in {{index:03d}}; {text[:200]!r} does not fit"
        raise InvalidRequestError({"save_to": problem})


def sidecar_path(path: Path) -> Path:
    """Return where the sidecar of a picture goes."""
    return path.with_name(path.name + ".json")


def sidecar_json(image: SavableImage, digest: str) -> bytes:
    """Return the sidecar: what made the picture, as JSON."""
    story: Mapping[str, Any] = {
        SIDECAR_MARK: SIDECAR_VERSION,
        **image.about,
        "index": image.index,
        "revised_prompt": image.revised_prompt,
        "format": image.format,
        "width_px": image.width,
        "height_px": image.height,
        "sha256": digest,
    }
    # ASCII keeps lone surrogates and control characters of a server's prompt as JSON escapes.
    return (json.dumps(story, indent=2, ensure_ascii=True, default=str) + "\n").encode("ascii")


def may_replace(path: Path) -> bool:
    """Return whether nothing is at `path`, or a sidecar that imgkit wrote."""
    if not os.path.lexists(path):
        return True
    try:
        if not path.is_file() or path.stat().st_size > _MOST_SIDECAR_BYTES:
            return False
        story = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(story, dict) and SIDECAR_MARK in story


def write_file(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file whole or not at all.

    Raises:
        FileExistsError: there is one, and it is not to be replaced.
        OSError, ValueError: it cannot be written, or the path is none.
    """
    _write(path, BytesSource(data), os.replace if overwrite else _link)
    _sync_folder(path.parent)


def _write(path: Path, content: Source, publish: Callable[[Path, Path], None]) -> None:
    """Write a whole file under a temporary name, flush it to the disk, then give it its name.

    The name is safe once `_sync_folder` has run.
    """
    if isinstance(content, PartFile) and content.may_be_named and _named(path, content, publish):
        return
    part = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as stream:
            for piece in _pieces(content):
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        publish(part, path)
    finally:
        if os.path.lexists(part):
            os.unlink(part)


def _pieces(content: Source) -> Iterator[bytes]:
    """Yield what a file is to hold."""
    if isinstance(content, FileSource | PartFile):
        yield from blocks(content)
    else:
        yield content.read()


def _named(path: Path, file: PartFile, publish: Callable[[Path, Path], None]) -> bool:
    """Give its name to a picture that is on disk already; return False if it is on another disk, or gone."""
    hidden = file.sync()
    if hidden is None:
        return False
    try:
        publish(hidden, path)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    if not os.path.lexists(hidden):  # moved; a link leaves it there
        file.moved(path)
    return True


def _take_back(path: Path, content: Source) -> None:
    """Undo `_write`, so that the picture can be written under another name."""
    if isinstance(content, PartFile) and content.path == path:
        hidden = path.with_name(f".imgkit-{secrets.token_hex(8)}.part")
        os.replace(path, hidden)
        content.moved_back(hidden)
    else:
        path.unlink()


def _link(part: Path, path: Path) -> None:
    """Give the file its name unless the name is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # File systems without hard links: claim the name first, then move over the own claim.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            os.replace(part, path)
        except OSError:
            os.unlink(path)
            raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # a folder cannot be opened for fsync elsewhere
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # a folder that may be written to and not be read
    try:
        os.fsync(descriptor)
    except OSError:
        return  # some file systems refuse it; the file itself is flushed
    finally:
        os.close(descriptor)
