"""From a picture file, or from pixels in memory, to a ``Picture``; the only place that opens a picture file."""

import errno
import hashlib
import os
import re
import stat
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from io import BufferedReader, BytesIO
from typing import IO, Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from whence.errors import OptionError, PictureError
from whence.pictures.decode import Decoded, decode_array, decode_image, decode_tensor, read_header


@runtime_checkable
class BinaryFile(Protocol):
    """A file object opened for reading bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, and return it."""


PictureSource = str | os.PathLike[str] | bytes | BinaryFile | Image.Image | np.ndarray | Tensor

# Pillow warns above this many pixels, and refuses only above twice as many.
MAX_PIXELS = 89_478_485
# Above what MAX_PIXELS in four channels of 16 bits take.
MAX_FILE_BYTES = 1 << 30
# For what comes over the network or through a pipe, which has to be kept in memory.
MAX_STREAM_BYTES = 64 << 20
# Holds what stands before the pixels: chunks, boxes and colour profiles.
_HEADER_BYTES = 1 << 20
_SILENCE_SECONDS = 20
_FETCH_SECONDS = 120

# The formats that are known by their first bytes and opened without decoding anything. EPS would start another
# program; ICO decodes before its size can be asked for. HEIF and JXL are there once their plugins are.
_FORMATS = (
    *("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "AVIF", "JPEG2000", "PPM"),
    *("HEIF", "JXL"),
)

_LOOKALIKES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), said)
    for pattern, said in (
        (rb"\s*(<\?xml.*)?<svg", "an SVG drawing: export it as PNG"),
        (rb"\s*<(!doctype|html|head|body|\?xml)", "a web page: download the picture itself"),
        (rb"%PDF", "a PDF document: export its page as PNG"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file: export it as PNG"),
        (rb".{4}ftyp(hei|hev|mif1|msf1)", "a HEIC picture: save it as JPEG, or install and register pillow-heif"),
        (rb".{128}DICM", "a DICOM file: read it with pydicom and pass its pixels as an array"),
        (rb"\x93NUMPY", "a numpy file: load it and pass the array"),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive: unpack it"),
        (rb"version https://git-lfs", "a Git LFS pointer: fetch the picture with `git lfs pull`"),
        (rb"\0\0\x01\0", "an icon: save it as PNG"),
        (rb"[\t\r\n -~\x80-\xff]+$", "text: name the picture itself"),
    )
)


@dataclass(frozen=True, eq=False)
class Picture:
    """Decoded pixels, upright, without alpha.

    ``name`` is the file's name, or "picture"; it is for people, never for the name of an output.
    ``pixels`` is [C, H, W]: uint8 where the source had 8 bits, else float32 in [0, 1]; C = 1 for grey, 3 for
    colour. ``sha256`` is that of the file's bytes in hex; of an array, a tensor or a PIL image it is that of
    dtype, shape and bytes of ``pixels``. ``decoded`` says in sentences what was done to decode it.
    """

    name: str
    pixels: Shaped[Tensor, "C H W"]
    sha256: str
    decoded: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def unit(self) -> Float32[Tensor, "C H W"]:
        """Return the pixels in [0, 1]."""
        return self.pixels / 255 if self.pixels.dtype == torch.uint8 else self.pixels

    def rgb8(self) -> UInt8[np.ndarray, "H W 3"]:
        """Return the pixels for showing; grey is repeated, more than 8 bits are rounded."""
        whole = self.pixels if self.pixels.dtype == torch.uint8 else (self.pixels * 255).round().byte()
        return whole.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def read(source: PictureSource, *, bits: int | None = None, name: str | None = None) -> Picture:
    """Read a picture as it is: upright, on white, with the brightness that its file means.

    ``source`` is a path, an http or https address, a file's bytes, a binary file object (read from its start),
    a PIL image, or pixels: numpy [H, W] or [H, W, C], torch [H, W] or [C, H, W], C = 1, 3 or 4 (alpha last), of
    uint8, uint16 or floats in [0, 1]. ``bits`` says how many of 16 bits are used, where the pictures of a
    folder are to share one scale; 8-bit pictures are not changed by it. ``name`` replaces the file's name.

    Raises PictureError, and nothing else, for whatever cannot be read; OptionError for bad ``bits``.
    """
    if bits is not None and bits not in range(1, 17):
        raise OptionError(f"bits={bits!r} was asked for, and 16-bit pictures use 1 to 16 bits: ask for one of them")
    if isinstance(source, str) and _scheme(source):
        return _read_file(BytesIO(_fetch(source)), name or _last_part(source), bits)
    if isinstance(source, str | os.PathLike):
        return _read_path(os.fsdecode(source), name, bits)
    name = name or "picture"
    if isinstance(source, bytes):
        return _read_file(BytesIO(source), name, bits)
    if isinstance(source, Image.Image | np.ndarray | Tensor):
        return _read_pixels(source, name, bits)
    if isinstance(source, BinaryFile):
        return _read_file(_rewound(source, name), name, bits)
    raise PictureError(
        f"{name!r} is of type {type(source).__name__}: pass a path, an address, bytes, a binary file object, "
        "a PIL image, or pixels as numpy array or tensor"
    )


def _scheme(source: str) -> str | None:
    """Return the scheme of an address such as ``https://...``; None for a path."""
    found = re.match(r"([a-z][a-z0-9+.-]+)://", source, re.IGNORECASE)
    return found[1].lower() if found else None


def _last_part(address: str) -> str:
    return unquote(urlsplit(address).path).rpartition("/")[2] or "picture"


def _said(error: Exception) -> str:
    """Return what an error says in one printable line; it may quote the file or a server."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words[:160])


@contextmanager
def _only_picture_errors(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises for a broken file into a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError:
        raise PictureError(f"{name!r} needs more memory than there is: save a smaller copy") from None
    except Exception as error:  # Pillow's plugins raise what their parsers stumble on: IndexError, zlib.error, ...
        raise PictureError(f"{name!r} is broken or cut short ({_said(error)}): get the file again") from error


def _read_path(path: str, name: str | None, bits: int | None) -> Picture:
    with _open(path) as file:
        # What is small is read once, and not again for the pixels and for the hash.
        small = os.fstat(file.fileno()).st_size <= _HEADER_BYTES
        held: BinaryFile = BytesIO(file.read(_HEADER_BYTES)) if small else file
        return _read_file(held, name or os.path.basename(path), bits)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open(path: str) -> BufferedReader:
    """Open an ordinary file; waits for no pipe, and raises PictureError for all else."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise PictureError(_why_not_opened(path, error)) from None
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise PictureError(f"{path!r} is a pipe or a device, not a file: name a picture file")


def _why_not_opened(path: str, error: OSError | ValueError) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT if os.path.islink(path):
            return f"{path!r} is a link to {os.readlink(path)!r}, and there is no such file: repair the link"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no file {path!r}: check its name and its folder"
        case errno.EISDIR:
            return f"{path!r} is a folder: name the pictures in it"
        case errno.EACCES | errno.EPERM:
            return f"{path!r} may not be read by this user: change its permissions"
    return f"{path!r} cannot be opened ({getattr(error, 'strerror', None) or error}): check its name"


def _rewound(source: BinaryFile, name: str) -> BinaryFile:
    """Return a file object that can be read twice."""
    with _only_picture_errors(name):
        try:
            source.seek(0)
            return source
        except OSError:
            data = source.read(MAX_STREAM_BYTES + 1)
        if len(data) > MAX_STREAM_BYTES:
            raise PictureError(f"{name!r} is a stream of more than {MAX_STREAM_BYTES} bytes: save it to a file")
        return BytesIO(data)


def _read_file(file: BinaryFile, name: str, bits: int | None) -> Picture:
    """Decode and hash an open file, both from this one handle."""
    with _only_picture_errors(name):
        _check_bytes(file, name)
        file.seek(0)
        start = file.read(_HEADER_BYTES)
        with _open_image(file, start, name) as image:
            _check_size(image.size, name)
            decoded = decode_image(image, read_header(image, start), name, bits)
        return _picture(name, decoded, _digest(file))


def _check_bytes(file: BinaryFile, name: str) -> None:
    count = file.seek(0, os.SEEK_END)
    if count == 0:
        raise PictureError(f"{name!r} is empty: get the file again")
    if count > MAX_FILE_BYTES:
        raise PictureError(
            f"{name!r} is too large, with {count} bytes, and at most {MAX_FILE_BYTES} are read: save a smaller copy"
        )


def _open_image(file: BinaryFile, start: bytes, name: str) -> Image.Image:
    """Let Pillow read the header."""
    Image.init()
    try:
        return Image.open(cast(IO[bytes], file), formats=[known for known in _FORMATS if known in Image.OPEN])
    except UnidentifiedImageError:
        raise PictureError(_why_no_picture(start[:512], name)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(
            f"{name!r} is too large, and at most {MAX_PIXELS} pixels are read: save a smaller copy"
        ) from None


def _why_no_picture(start: bytes, name: str) -> str:
    for pattern, said in _LOOKALIKES:
        if pattern.match(start):
            return f"{name!r} is not a picture that can be read, and looks like {said}"
    return f"{name!r} is not a picture of a format that can be read, or its header is broken: save it as PNG or JPEG"


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height == 0:
        raise PictureError(f"{name!r} has no pixels ({width} x {height}): get the file again")
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name!r} is too large, with {width} x {height} pixels, and at most {MAX_PIXELS} are read: "
            "save a smaller copy"
        )


def _digest(file: BinaryFile) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read_pixels(source: Image.Image | np.ndarray | Tensor, name: str, bits: int | None) -> Picture:
    with _only_picture_errors(name):
        if isinstance(source, Image.Image):
            _check_size(source.size, name)
            decoded = decode_image(source, read_header(source, b""), name, bits)
        elif isinstance(source, Tensor):
            decoded = decode_tensor(source, name, bits)
        else:
            decoded = decode_array(source, name, bits)
        return _picture(name, decoded, None)


def _picture(name: str, decoded: Decoded, digest: str | None) -> Picture:
    # A copy, because the pixels may still be those of the caller's array.
    pixels = np.array(np.moveaxis(decoded.pixels, -1, 0), order="C")
    head = f"{pixels.dtype} {list(pixels.shape)} ".encode()
    digest = digest or hashlib.sha256(head + pixels.tobytes()).hexdigest()
    return Picture(name, torch.from_numpy(pixels), digest, decoded.notes)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone; urllib's own also follows redirections to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "whence"), ("Accept", "image/*")]
    return opener


def _fetch(address: str) -> bytes:
    """Return what an address holds, at most MAX_STREAM_BYTES; raises PictureError."""
    if _scheme(address) not in ("http", "https"):
        raise PictureError(f"{address!r} is no http or https address: download the picture and name the file")
    try:
        with _opener().open(address, timeout=_SILENCE_SECONDS) as answer:
            return _bounded(answer, address)
    except PictureError:
        raise
    except Exception as error:  # http.client, ssl and the codecs of host names all have errors of their own.
        raise PictureError(f"{address!r} cannot be fetched ({_said(error)}): check it and the network") from error


def _bounded(answer: HTTPResponse, address: str) -> bytes:
    data, deadline = bytearray(), time.monotonic() + _FETCH_SECONDS
    # read1 returns what has come, so that a server that drips is seen.
    while block := answer.read1(1 << 16):
        data += block
        if len(data) > MAX_STREAM_BYTES:
            raise PictureError(f"{address!r} holds more than {MAX_STREAM_BYTES} bytes: download it and name the file")
        if time.monotonic() > deadline:
            raise PictureError(f"{address!r} takes longer than {_FETCH_SECONDS} s: download it and name the file")
    return bytes(data)
