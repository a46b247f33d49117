"""Saving images: complete files under free names, each with its sidecar."""

from __future__ import annotations

import errno
import os
import re
import secrets
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from imgkit.errors import InvalidRequestError, SaveError
from imgkit.files import create_empty, make_folders, remove_after, sync_folder, write_atomically
from imgkit.images.mistakes import explain_target, explain_unwritable
from imgkit.images.part_files import PartFile, PartFiles
from imgkit.images.sidecars import SavableImage, can_replace, sidecar_json, sidecar_path
from imgkit.images.sniff import EXTENSIONS, Format
from imgkit.images.sources import BytesSource, FileSource, Source, read_blocks
from imgkit.wire.plain_values import to_path

PATTERN_FIELDS = ("index", "slug", "ext", "digest", "operation", "model")

_KNOWN_EXTENSIONS = {extension for names in EXTENSIONS.values() for extension in names}
_MAX_NAMES = 10_000
_QUOTED_CHARACTERS = 300
_SLUG_CHARACTERS = 48
_DIGEST_CHARACTERS = 12
_DEVICE_NAME = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # reserved by Windows
_FORMAT_SPEC = re.compile(r"[<>^]?\d{0,2}[ds]?")
_LONGEST_VALUES: Mapping[str, object] = {
    "index": 99,
    "slug": "x" * _SLUG_CHARACTERS,
    "ext": "webp",
    "digest": "0" * _DIGEST_CHARACTERS,
    "operation": "x" * _SLUG_CHARACTERS,
    "model": "x" * _SLUG_CHARACTERS,
}
_LONGEST_SUFFIX = "-9999.webp.json"
"""Longest addition to a name: a number, the right extension and the extension of a sidecar."""


@dataclass(frozen=True, slots=True)
class SavePlan:
    """The file names of a call's images.

    >>> SavePlan.from_target("out/{index:03d}.{ext}").pattern
    '{index:03d}.{ext}'

    Attributes:
        folder: the folder of the files.
        pattern: format string of a file name, with the fields of `PATTERN_FIELDS`.
        make_folder: create the folder if necessary; the folder of a plain file must exist.
        overwrite: replace existing files instead of taking the next free name.
        sidecar: write a JSON sidecar beside each image.
    """

    folder: Path
    pattern: str
    make_folder: bool
    overwrite: bool = False
    sidecar: bool = True

    @classmethod
    def from_target(
        cls,
        target: str | PathLike[str],
        *,
        overwrite: bool = False,
        sidecar: bool = True,
        field: str = "save_to",
    ) -> SavePlan:
        """Return the plan for a `save_to` argument.

        Args:
            target: a folder (existing, or with a slash at the end), a pattern with ``{…}``, or a file.
            overwrite, sidecar: see the class.
            field: the name of the argument, for error messages.

        Raises:
            InvalidRequestError: the target is no path, or a pattern with unknown fields.
        """
        try:
            text = to_path(target)
        except ValueError:
            raise InvalidRequestError({field: explain_target(target)}) from None
        if "\0" in text:
            raise InvalidRequestError({field: explain_target(text)})
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            raise InvalidRequestError({field: f"{text[:200]!r} cannot be a path on this system."}) from None
        if "{" in text or "}" in text:
            _check_pattern(text, field)
            folder = os.path.dirname(re.split("[{}]", text, maxsplit=1)[0])
            return cls(Path(folder), text[len(folder) :].lstrip("/" + os.sep), True, overwrite, sidecar)
        path = Path(text)
        if not text or text.endswith(("/", os.sep)) or os.path.isdir(text):
            return cls(path, "{slug}", True, overwrite, sidecar)
        if not path.name.strip("."):
            raise InvalidRequestError({field: f"{text!r} is not a file name."})
        return cls(path.parent, _escape_braces(path.name), False, overwrite, sidecar)

    def check(self) -> None:
        """Check that the folder is writable, before the call costs anything.

        Raises:
            InvalidRequestError: the folder is missing or not writable, or a name is too long.
        """
        folder = self.part_folder or self.folder
        probe = folder / f".imgkit-{secrets.token_hex(8)}.part"
        try:
            if self.make_folder:
                make_folders(folder)
            with remove_after(probe):
                create_empty(probe, 0o600)
            for part in Path(self.pattern.format(**_LONGEST_VALUES) + _LONGEST_SUFFIX).parts:
                _check_name(self.folder / part)
        except OSError as error:
            remedy = explain_unwritable(
                error, str(self.folder), self.pattern, is_folder_made=self.make_folder
            )
            raise InvalidRequestError(
                {"save_to": f"Cannot write in {quote_path(self.folder)} ({error.strerror}). {remedy}"}
            ) from None

    def write(self, image: SavableImage, count: int) -> Path:
        """Write an image and its sidecar.

        Args:
            image: the image; name and sidecar contain its `index` and `about`.
            count: number of images of the call. Above 1, a name without ``{index}`` gets a number.

        Returns:
            The path of the written file.

        Raises:
            NotDownloadedError, DownloadError: the bytes are unavailable.
            SaveError: the file could not be written.
        """
        digest = image.sha256 if self.needs_digest else ""
        preferred = self.build_path(image, digest, count)
        sidecar = sidecar_json(image, digest) if self.sidecar else None
        try:
            if self.make_folder:
                make_folders(preferred.parent)
            return self._write_files(preferred, image, sidecar)
        except OSError as error:
            raise SaveError(
                f"Cannot write {quote_path(preferred)} ({error.strerror or error}). "
                + explain_unwritable(
                    error, str(preferred.parent), preferred.name, is_folder_made=self.make_folder
                ),
                images=(image,),
                hint="The image is still in image.data: call image.save again.",
            ) from None

    @property
    def needs_check(self) -> bool:
        """Whether `check` has to look at the disk."""
        return True

    def make_part_files(self, digests: bool, cleanup: ExitStack) -> PartFiles:
        """Return the part files of a reply, which `cleanup` closes."""
        files = PartFiles(self.part_folder or self.folder, digests=digests)
        cleanup.callback(files.close)
        return files

    def may_block(self, image: SavableImage) -> bool:
        """Return whether `write` may wait for the disk."""
        return True

    @property
    def part_folder(self) -> Path | None:
        """A folder for images that are not complete yet, None to keep them near their final names."""
        return None

    @property
    def needs_digest(self) -> bool:
        """Whether a sidecar or a name contains the SHA-256 of each image."""
        return self.sidecar or "digest" in _parse_fields(self.pattern)

    def build_path(self, image: SavableImage, digest: str, count: int) -> Path:
        """Return the path of an image if no file has its name."""
        about = image.about
        format = image.format
        extension = EXTENSIONS[format][0] if format else ".bin"
        name = self.pattern.format(
            index=image.index + 1,
            slug=slug(str(about.get("name") or about.get("prompt") or about.get("operation") or "image")),
            ext=extension[1:],
            digest=digest[:_DIGEST_CHARACTERS],
            operation=slug(str(about.get("operation") or "image")),
            model=slug(str(about.get("model") or "default")),
        )
        path = with_extension(self.folder / name, format)
        if count > 1 and "index" not in _parse_fields(self.pattern):
            path = path.with_name(f"{path.stem}-{image.index + 1}{path.suffix}")
        return path

    def _write_files(self, preferred: Path, image: SavableImage, sidecar: bytes | None) -> Path:
        source = image.source
        if self.overwrite:
            if sidecar is not None and not can_replace(sidecar_path(preferred)):
                raise SaveError(
                    f"{quote_path(sidecar_path(preferred))} exists and is not a sidecar of imgkit. Choose "
                    "another name, or save with sidecar=False.",
                    images=(image,),
                )
            _write_source(preferred, source, os.replace, self.part_folder)
            if sidecar is not None:
                _write_source(sidecar_path(preferred), BytesSource(sidecar), os.replace)
            _sync_folder(preferred.parent)
            return preferred
        stem, suffix = os.path.join(preferred.parent, preferred.stem), preferred.suffix
        for number in range(1, _MAX_NAMES):
            name = str(preferred) if number == 1 else f"{stem}-{number}{suffix}"
            # Test the name as text: building a Path for each taken name would dominate the cost.
            if os.path.lexists(name) or (sidecar is not None and os.path.lexists(f"{name}.json")):
                continue
            path = Path(name)
            try:
                _write_source(path, source, _link)
            except FileExistsError:
                continue  # another process has just taken the name
            try:
                if sidecar is not None:
                    _write_source(sidecar_path(path), BytesSource(sidecar), _link)
            except OSError as error:
                _undo_write(path, source)
                if isinstance(error, FileExistsError):
                    continue
                raise
            _sync_folder(path.parent)
            return path
        raise SaveError(
            f"{_MAX_NAMES} files like {quote_path(preferred)} exist. Choose another name.", images=(image,)
        )


def quote_path(path: Path) -> str:
    """Return the text of a path for a message, cut if it is very long."""
    text = str(path)
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")


def with_extension(path: Path, format: Format | None) -> Path:
    """Return `path` with an extension of `format`. A correct extension stays.

    >>> with_extension(Path("fox.png"), "jpeg").name, with_extension(Path("fox.JPG"), "jpeg").name
    ('fox.jpg', 'fox.JPG')
    """
    if format is None:
        return path if path.suffix.lower() == ".bin" else path.with_name(path.name + ".bin")
    if path.suffix.lower() in EXTENSIONS[format]:
        return path
    if path.suffix.lower() in _KNOWN_EXTENSIONS:
        return path.with_suffix(EXTENSIONS[format][0])
    return path.with_name(path.name + EXTENSIONS[format][0])


def slug(text: str, limit: int = _SLUG_CHARACTERS) -> str:
    """Return `text` as a safe part of a file name: a-z, 0-9 and "-", at most `limit` characters.

    >>> slug("An Otter, at work!")
    'an-otter-at-work'
    """
    plain = unicodedata.normalize("NFKD", text[: limit * 8]).encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].rstrip("-")
    return f"image-{short}" if _DEVICE_NAME.fullmatch(short) else short or "image"


def _escape_braces(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _check_name(path: Path) -> None:
    """Raise OSError if the file system does not allow the name, for example because of its length."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return


def _parse_fields(pattern: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None}


def _check_pattern(text: str, field_name: str) -> None:
    try:
        fits = all(
            field is None
            or (field in PATTERN_FIELDS and not conversion and _FORMAT_SPEC.fullmatch(spec or ""))
            for _, field, spec, conversion in string.Formatter().parse(text)
        )
        if fits:
            text.format(**_LONGEST_VALUES)
    except ValueError:
        fits = False
    if not fits:
        names = ", ".join(f"{{{name}}}" for name in PATTERN_FIELDS)
        problem = (
            f"{text[:200]!r} does not fit. A pattern may contain {names}, and widths as in {{index:03d}}."
        )
        raise InvalidRequestError({field_name: problem})


def write_file(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a complete file or nothing.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        OSError, ValueError: the file cannot be written, or the path is invalid.
    """
    _write_source(path, BytesSource(data), os.replace if overwrite else _link)
    _sync_folder(path.parent)


def _write_source(
    path: Path, source: Source, publish: Callable[[Path, Path], None], part_folder: Path | None = None
) -> None:
    """Write a file under a temporary name, flush it to the disk, then publish it under its name.

    The name survives a power failure only after `_sync_folder`.
    """
    if isinstance(source, PartFile) and source.can_be_renamed and _publish_part_file(path, source, publish):
        return
    write_atomically(
        path,
        _read_source(source),
        mode=0o666,
        suffix=".part",
        publish=publish,
        part_folder=part_folder,
    )


def _read_source(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a source, in blocks if it is on disk."""
    if isinstance(source, FileSource | PartFile):
        yield from read_blocks(source)
    else:
        yield source.read()


def _publish_part_file(path: Path, file: PartFile, publish: Callable[[Path, Path], None]) -> bool:
    """Publish an image that is on disk already. Return False if it is on another disk, or gone."""
    hidden = file.sync()
    if hidden is None:
        return False
    try:
        publish(hidden, path)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    if not os.path.lexists(hidden):  # moved, not linked
        file.record_move(path)
    return True


def _undo_write(path: Path, source: Source) -> None:
    """Undo `_write_source` to write the image under another name."""
    if isinstance(source, PartFile) and source.path == path:
        hidden = path.with_name(f".imgkit-{secrets.token_hex(8)}.part")
        os.replace(path, hidden)
        source.record_undo(hidden)
    else:
        path.unlink()


def _link(part: Path, path: Path) -> None:
    """Publish the file under its name. Raises FileExistsError if the name is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: claim the name first, then replace the claim.
        create_empty(path, 0o666)
        try:
            os.replace(part, path)
        except OSError:
            os.unlink(path)
            raise


def _sync_folder(folder: Path) -> None:
    # Some folders are writable but not readable, and some file systems refuse. The file is on disk.
    with suppress(OSError):
        sync_folder(folder)
