"""From what Pillow, numpy and torch hold to plain pixels, with a sentence for everything that was done to them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from whence.errors import PictureError

_FULL = 65535
# The bit depths of cameras, scanners and detectors whose values are kept in 16 bits.
_DEPTHS = (8, 10, 12, 14, 16)

_INTEGERS = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
_WITH_ALPHA = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA", "P": "RGBA"}
_OPAQUE = {"1": "L", "L": "L"} | dict.fromkeys(("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"), "RGB")
_SAID = {
    "1": ("1-bit converted to 8-bit grey",),
    **dict.fromkeys(("P", "PA"), ("palette converted to RGB",)),
    **{mode: (f"{mode} converted to RGB",) for mode in ("CMYK", "YCbCr", "HSV", "LAB")},
}

# How the stored [H, W, ...] pixels are turned for each EXIF orientation (EXIF 2.32, tag 0x0112).
_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True)
class Header:
    """What a file says of its samples and Pillow does not pass on.

    ``depth`` is the number of bits of a stored sample. ``grey`` is true where the file is grey although Pillow
    decodes it as colour. ``largest`` is the largest value that a sample may take, ``beyond`` the one that holds
    where the samples contradict it. ``stretched`` is the value to which Pillow brings ``largest``. ``inverted``
    is true where zero is white and Pillow leaves it so.
    """

    depth: int = 8
    grey: bool = False
    inverted: bool = False
    largest: int | None = None
    beyond: int | None = None
    stretched: int | None = None


@dataclass(frozen=True)
class Decoded:
    """Pixels, uint8 or float32 in [0, 1], and the sentences that say how they came about."""

    pixels: Shaped[np.ndarray, "H W C"]
    notes: tuple[str, ...]


def read_header(image: Image.Image, start: bytes) -> Header:
    """Return what the file says of its samples; to be called before the image is loaded.

    ``start`` is the first part of the file, empty where only Pillow has it.
    """
    match image.format:
        case "TIFF" if isinstance(image, TiffImageFile):
            return _tiff_header(image)
        case "PPM":
            return _ppm_header(image)
        case "PNG" if start:
            return _png_header(start)
        case "JPEG2000":
            return _jpeg2000_header(start) if start else Header(largest=_FULL)
    return Header()


def _png_chunk(start: bytes, wanted: bytes) -> bytes:
    """Return what a chunk before the pixels holds, nothing where there is none."""
    place = 8
    while place + 8 <= len(start):
        length, kind = struct.unpack_from(">I4s", start, place)
        if kind in (wanted, b"IDAT"):
            return start[place + 8 : place + 8 + length] if kind == wanted else b""
        place += length + 12
    return b""


def _png_header(start: bytes) -> Header:
    """Read IHDR and sBIT (PNG 3rd edition, 11.2.1 and 11.3.2.7).

    A writer that conforms scales fewer bits up to 16 and names them in sBIT; many others name them in sBIT and
    store the values raw. Samples that go beyond the named bits can only be of the first kind.
    """
    depth, colour = _png_chunk(start, b"IHDR")[8:10]
    bits = (_png_chunk(start, b"sBIT") or b"\0")[0]
    stated = 2**bits - 1 if 0 < bits <= 16 else None
    return Header(depth=depth, grey=colour in (0, 4), largest=stated, beyond=_FULL if stated else None)


def _tiff_header(image: TiffImageFile) -> Header:
    """Read BitsPerSample, PhotometricInterpretation and MaxSampleValue (TIFF 6.0, section 8)."""
    tags = image.tag_v2
    depth = int(np.max(tags.get(Base.BitsPerSample, 1)))
    brightest = int(np.max(tags.get(Base.MaxSampleValue, 0)))
    bits = depth if 8 < depth < 16 else _bits_for(brightest)
    stated = 2**bits - 1 if 8 < depth < 16 or 0 < brightest <= _FULL else None
    # Pillow inverts white-is-zero up to 8 bits, and leaves it as it is above.
    inverted = tags.get(Base.PhotometricInterpretation) == 0 and depth > 8
    return Header(depth=depth, inverted=inverted, largest=stated)


def _ppm_header(image: Image.Image) -> Header:
    """Find the maxval in what Pillow is about to decode with; it stretches grey above 255 to 16 bits."""
    tiles = getattr(image, "tile", ())
    args = tiles[0].args if tiles else None
    maxval = args[-1] if isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 0 else None
    largest = maxval or (_FULL if image.mode == "I" else 255)
    return Header(depth=largest.bit_length(), largest=largest, stretched=_FULL)


def _jpeg2000_header(start: bytes) -> Header:
    """Read the bits of the first component from the SIZ marker (ISO/IEC 15444-1, A.5.1).

    Pillow shifts grey of more than 8 bits up to 16.
    """
    codestream = start.partition(b"\xff\x4f\xff\x51")[2]
    depth = min((codestream[38] & 0x7F) + 1, 16) if len(codestream) > 38 else 16
    largest = 2**depth - 1
    return Header(depth=depth, largest=largest, stretched=largest << (16 - depth))


def decode_image(image: Image.Image, header: Header, name: str, bits: int | None) -> Decoded:
    """Turn what Pillow holds into upright pixels, one channel for grey and three for colour.

    Raises PictureError where the samples have no meaning as a picture: values outside their range, a mode that
    cannot be converted. Pillow's own errors pass through.
    """
    # Pillow turns a TIFF while it loads it and then forgets that it did.
    turned = _orientation(image)[0] if image.format == "TIFF" else 1
    _check_strips(image, name)
    image.load()
    decoded = _samples(image, header, name, bits)
    turn, doubts = _orientation(image)
    pixels = _TURNS[turn](decoded.pixels) if turn in _TURNS else decoded.pixels
    applied = next((t for t in (turn, turned) if t in _TURNS), None)
    upright = (f"EXIF orientation {applied} applied",) if applied else ()
    notes = _frame_notes(image) + decoded.notes + _profile_notes(image) + upright + doubts
    return Decoded(pixels, notes)


def _check_strips(image: Image.Image, name: str) -> None:
    """Refuse a TIFF that lacks strips: Pillow would leave their pixels black."""
    if not isinstance(image, TiffImageFile) or not image.tile:
        return
    boxes = [tile.extents or (0, 0, *image.size) for tile in image.tile]
    held = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if held < image.width * image.height:
        raise PictureError(f"{name!r} is broken or cut short (strips are missing): get the file again")


def _orientation(image: Image.Image) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation, 1 where there is none, and a sentence where EXIF is broken."""
    try:
        return int(image.getexif().get(Base.Orientation, 1)), ()
    except Exception:  # Pillow raises whatever its parser stumbles on.
        return 1, ("EXIF is broken, so the picture was taken to be upright",)


def _frame_notes(image: Image.Image) -> tuple[str, ...]:
    """Say that only the first of several frames is used."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except Exception:  # The frames behind the first may be cut off; it is the only one that is used.
        return ("first frame, the ones behind it are broken",)
    return (f"first of {count} frames",) if count > 1 else ()


def _profile_notes(image: Image.Image) -> tuple[str, ...]:
    """Say that a colour profile is ignored, as it is where classifiers are trained, unless it is sRGB."""
    profile = image.info.get("icc_profile") or b""
    # Version 4 profiles hold their name in UTF-16.
    if not profile or b"sRGB" in profile.replace(b"\0", b""):
        return ()
    return ("embedded colour profile ignored: it is not sRGB",)


def _samples(image: Image.Image, header: Header, name: str, bits: int | None) -> Decoded:
    if image.mode in _INTEGERS:
        return _integers(image, header, name, bits)
    if image.mode == "F":
        return _floats(image, header, name)
    if image.mode in _WITH_ALPHA and image.has_transparency_data:
        decoded = _with_alpha(image)
    elif image.mode in _OPAQUE:
        decoded = _opaque(image, header)
    else:
        raise PictureError(
            f"{name!r} holds pixels of mode {image.mode}, which cannot be converted: save it as RGB or grey"
        )
    pixels = decoded.pixels[..., :1] if header.grey else decoded.pixels
    reduced = (f"{header.depth}-bit samples reduced to 8 bits",) if header.depth > 8 else ()
    return Decoded(pixels, reduced + decoded.notes)


def _as_mode(image: Image.Image, mode: str) -> UInt8[np.ndarray, "H W *C"]:
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _with_alpha(image: Image.Image) -> Decoded:
    pixels = _as_mode(image, _WITH_ALPHA[image.mode])
    return Decoded(_on_white(pixels), (*_SAID.get(image.mode, ()), "alpha composited on white"))


def _opaque(image: Image.Image, header: Header) -> Decoded:
    pixels = _as_mode(image, _OPAQUE[image.mode])
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    key = image.info.get("transparency")
    if key is None:
        return Decoded(pixels, _SAID.get(image.mode, ()))
    clear = (pixels == _in_eight_bits(key, header.depth)).all(axis=-1, keepdims=True)
    return Decoded(np.where(clear, np.uint8(255), pixels), (*_SAID.get(image.mode, ()), "alpha composited on white"))


def _in_eight_bits(key: int | tuple[int, ...], depth: int) -> Shaped[np.ndarray, "..."]:
    """Bring a transparent colour to the bits that Pillow decodes to; it leaves it in those of the file."""
    samples = np.atleast_1d(key)
    return samples >> (depth - 8) if depth > 8 else samples * 255 // (2**depth - 1)


def _on_white(pixels: UInt8[np.ndarray, "H W D"]) -> UInt8[np.ndarray, "H W C"]:
    """Composite on white: round((c a + 255 (255 - a)) / 255), for which 16 bits are enough."""
    alpha = pixels[..., -1].astype(np.uint16)
    white = 255 * (255 - alpha) + 127
    planes = np.empty((pixels.shape[-1] - 1, *pixels.shape[:2]), np.uint8)
    for channel, plane in enumerate(planes):
        plane[:] = (pixels[..., channel] * alpha + white) // 255
    return np.moveaxis(planes, 0, -1)


def _integers(image: Image.Image, header: Header, name: str, bits: int | None) -> Decoded:
    stored = np.asarray(image)[..., None]
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > _FULL:
        raise PictureError(
            f"{name!r} holds whole numbers from {low} to {high}, and only 0 to {_FULL} have a known brightness: "
            "scale them to [0, 1] and pass them as an array"
        )
    raw = _unstretched(stored, header)
    unit, note = scaled(raw, header, name, bits)
    width = 32 if image.mode == "I" and header.depth > 16 else 16
    notes: tuple[str, ...] = (f"{width}-bit grey {note}",)
    if header.inverted:
        unit, notes = 1 - unit, (*notes, "white-is-zero grey inverted")
    key = image.info.get("transparency")
    if isinstance(key, int):
        unit, notes = np.where(raw == key, np.float32(1), unit), (*notes, "alpha composited on white")
    return Decoded(unit, notes)


def _unstretched(stored: Shaped[np.ndarray, "H W C"], header: Header) -> Shaped[np.ndarray, "H W C"]:
    """Undo Pillow's stretching to 16 bits, exactly: it rounded to the nearest of a finer grid."""
    if header.stretched is None or header.largest is None or header.stretched == header.largest:
        return stored
    return (stored.astype(np.int64) * header.largest + header.stretched // 2) // header.stretched


def _floats(image: Image.Image, header: Header, name: str) -> Decoded:
    pixels = np.asarray(image)[..., None]
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise PictureError(
            f"{name!r} holds floats from {low:g} to {high:g}, and only [0, 1] has a known brightness: "
            "scale them to [0, 1]"
        )
    notes = ("white-is-zero grey inverted",) if header.inverted else ()
    return Decoded(1 - pixels if header.inverted else pixels, notes)


def _bits_for(value: int) -> int:
    return next((bits for bits in _DEPTHS if value < 2**bits), 16)


def scaled(
    raw: Shaped[np.ndarray, "H W C"], header: Header, name: str, bits: int | None
) -> tuple[Float32[np.ndarray, "H W C"], str]:
    """Divide whole numbers by the largest one they may take, and say which that is."""
    largest, why = _largest(int(raw.max()), header, name, bits)
    whole = (largest + 1).bit_count() == 1
    by = f"{largest.bit_length()} bits" if whole else f"its largest allowed value {largest}"
    return raw.astype(np.float32) / np.float32(largest), f"scaled by {by}, {why}"


def _largest(top: int, header: Header, name: str, bits: int | None) -> tuple[int, str]:
    """Return the largest value that samples up to ``top`` may take, and why.

    It is 2^bits - 1 where ``bits`` is asked for (PictureError if they do not hold the values), else what the
    header states, else that of the smallest of 8, 10, 12, 14 and 16 bits that holds the values.
    """
    if bits is not None and top >= 2**bits:
        raise PictureError(
            f"{name!r} holds values up to {top}, more than the {bits} bits asked for (at most {2**bits - 1}): "
            f"ask for bits={_bits_for(top)}, or leave bits out"
        )
    if bits is not None:
        return 2**bits - 1, "as asked for"
    if stated := header.largest if header.largest and top <= header.largest else header.beyond:
        return stated, "as the file states"
    return 2 ** _bits_for(top) - 1, f"the fewest that hold its largest value {top}"


def decode_tensor(pixels: Shaped[torch.Tensor, "..."], name: str, bits: int | None) -> Decoded:
    """Take pixels [C, H, W] or [H, W] on any device; see ``decode_array``."""
    plain = pixels.detach().cpu()
    # numpy has no bfloat16.
    array = (plain.float() if plain.is_floating_point() else plain).numpy()
    _check_shape(array, "[C, H, W]", 0, name)
    return _decode_channels_last(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, name, bits)


def decode_array(pixels: Shaped[np.ndarray, "..."], name: str, bits: int | None) -> Decoded:
    """Take pixels [H, W, C] or [H, W] of uint8, uint16 or floats in [0, 1], C = 1, 3 or 4 (alpha last).

    Raises PictureError for any other shape or dtype, and for NaN, infinity and floats outside [0, 1].
    """
    _check_shape(pixels, "[H, W, C]", -1, name)
    return _decode_channels_last(pixels, name, bits)


def _check_shape(pixels: Shaped[np.ndarray, "..."], layout: str, axis: int, name: str) -> None:
    if pixels.size and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[axis] in (1, 3, 4))):
        return
    cure = "pass one picture at a time" if pixels.ndim > 3 else "bring it into that shape"
    if pixels.ndim == 3 and pixels.shape[-1 - axis] in (1, 3, 4):
        turned = "permute(2, 0, 1)" if axis == 0 else "transpose(1, 2, 0)"
        cure = f"its channels stand at the other end, so pass pixels.{turned}"
    raise PictureError(
        f"{name!r} must be pixels [H, W] or {layout} with C = 1, 3 or 4 and none of them zero, and has shape "
        f"{list(pixels.shape)} of {pixels.dtype}{_range(pixels)}: {cure}"
    )


def _range(pixels: Shaped[np.ndarray, "..."]) -> str:
    """Return the end of an error message: the values from the least to the greatest, where there are any."""
    if pixels.size == 0 or pixels.dtype.kind not in "biuf":
        return ""
    return f" with values from {pixels.min():g} to {pixels.max():g}"


def _decode_channels_last(pixels: Shaped[np.ndarray, "..."], name: str, bits: int | None) -> Decoded:
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.dtype == np.uint8:
        notes: tuple[str, ...] = ()
    elif pixels.dtype.newbyteorder("=") == np.uint16:
        pixels, note = scaled(pixels, Header(), name, bits)
        notes = (f"16-bit {'grey' if pixels.shape[-1] == 1 else 'colour'} {note}",)
    else:
        pixels, notes = _checked_floats(pixels, name), ()
    if pixels.shape[-1] != 4:
        return Decoded(pixels, notes)
    flat = _on_white(pixels) if pixels.dtype == np.uint8 else _float_on_white(pixels)
    return Decoded(flat, (*notes, "alpha composited on white"))


def _float_on_white(pixels: Float32[np.ndarray, "H W 4"]) -> Float32[np.ndarray, "H W 3"]:
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    flat: Float32[np.ndarray, "H W 3"] = colour * alpha + (1 - alpha)
    return flat


def _checked_floats(pixels: Shaped[np.ndarray, "H W C"], name: str) -> Float32[np.ndarray, "H W C"]:
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        return pixels.astype(np.float32)
    raise PictureError(
        f"{name!r} must hold uint8, uint16 or floats in [0, 1], and has shape {list(pixels.shape)} of "
        f"{pixels.dtype}{_range(pixels)}: {_cure(pixels)}"
    )


def _cure(pixels: Shaped[np.ndarray, "H W C"]) -> str:
    if pixels.dtype.kind not in "iuf":
        return "convert it to uint8"
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "remove NaN and infinity"
    if low < 0:
        return "undo the normalisation, and scale it to [0, 1]"
    return "divide it by 255" if high <= 255 else "scale it to [0, 1]"
