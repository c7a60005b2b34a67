"""Picture files, crafted byte by byte, with the pixels or the error that each of them must give.

Every expected value follows from how its file is made, never from the reader.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Make = Iterator["Case"]
FOUR_GIB = 4 << 30


@dataclass(frozen=True)
class Case:
    """A file and what must come of it: ``pixels`` [C, H, W] within ``tolerance``, or an error holding ``error``.

    Each of the words in ``decoded`` stands in a sentence of its own, and there are no other sentences.
    """

    name: str
    path: Path
    pixels: np.ndarray | None = None
    error: str | None = None
    decoded: tuple[str, ...] = ()
    tolerance: float = 0
    bits: int | None = None


def corpus(folder: Path) -> list[Case]:
    """Write all files into ``folder`` and return their cases."""
    makers: tuple[Callable[[Path], Make], ...] = (
        *(_turned, _colours, _alphas, _deep_pngs, _deep_tiffs, _netpbm, _frames, _shapes_and_names),
        *(_cut, _fakes, _bombs, _no_files, _meaningless),
    )
    cases = [case for make in makers for case in make(folder)]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def noise(*shape: int, top: int = 256) -> np.ndarray:
    """Return whole numbers in [0, top) of 8 bits or, where they are too few, 16; 0 and top - 1 are among them."""
    values = np.random.default_rng(sum(shape)).integers(0, top, shape)
    values.flat[0], values.flat[-1] = 0, top - 1
    return values.astype(np.uint8 if top <= 256 else np.uint16)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, *extra: bytes, depth: int = 8, colour: int = 2, late: bytes = b"") -> bytes:
    """Return a PNG: [H, W] or [H, W, C] samples of ``depth`` bits; extra chunks before or late, after the pixels."""
    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    if depth < 8:
        bits = (pixels[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        rows = pixels.reshape(height, -1).astype(">u2" if depth == 16 else ">u1")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    body = chunk(b"IHDR", head) + b"".join(extra) + chunk(b"IDAT", data) + late + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation: int) -> bytes:
    """Return EXIF data (a big-endian TIFF directory) with one entry."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def tiff(data: bytes, size: tuple[int, int], order: str = "<", **tags: int | tuple[int, ...]) -> bytes:
    """Return a TIFF of one strip; ``tags`` are t256=..., and replace those of plain grey pixels."""
    width, height = size
    plain = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = plain | {int(tag[1:]): value for tag, value in tags.items()}
    after = 8 + len(data)
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        kind, code = (3, "H") if tag in (258, 259, 262, 274, 277, 281, 338, 339) else (4, "I")
        raw = struct.pack(order + f"{len(values)}{code}", *values)
        if len(raw) > 4:
            place = after + 2 + 12 * len(entries) + 4 + len(beyond)
            beyond, raw = beyond + raw, struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", after) + data + directory + bytes(4) + beyond


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] to [C, H, W]."""
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def divided(values: np.ndarray, by: int) -> np.ndarray:
    """Return [1, H, W] of values / by, rounded once."""
    return (values.astype(np.float32) / np.float32(by))[None]


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Composite [H, W, C + alpha] of 8 bits on white in whole numbers, [C, H, W]."""
    colour, alpha = pixels[..., :-1].astype(int), pixels[..., -1:].astype(int)
    exact = colour * alpha + 255 * (255 - alpha)
    return channels_first(((2 * exact + 255) // 510).astype(np.uint8))


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# Where row 0 and column 0 of the stored pixels lie in the upright picture (EXIF 2.32, table of tag 0x0112).
_SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def _stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels as they are stored, looked up one by one."""
    height, width = upright.shape[:2]
    swapped = _SIDES[orientation][0] in ("left", "right")
    rows, columns = (width, height) if swapped else (height, width)
    stored = np.empty((rows, columns, 3), np.uint8)
    for row, column in np.ndindex(rows, columns):
        at = dict(zip(_SIDES[orientation], (row, column), strict=True))
        y = at["top"] if "top" in at else height - 1 - at["bottom"]
        x = at["left"] if "left" in at else width - 1 - at["right"]
        stored[row, column] = upright[y, x]
    return stored


def _turned(folder: Path) -> Make:
    upright = noise(5, 7, 3)
    blocks = np.kron(noise(2, 3, 3) // 2 + 64, np.ones((16, 16, 1), np.uint8))
    for turn in _SIDES:
        said = (f"EXIF orientation {turn} applied",) if turn > 1 else ()
        data = png(_stored(upright, turn), chunk(b"eXIf", exif(turn)))
        yield Case(
            f"png turned {turn}", _write(folder, f"turn{turn}.png", data), channels_first(upright), decoded=said
        )
        data = saved(_stored(blocks, turn), "JPEG", quality=98, subsampling=0, exif=b"Exif\0\0" + exif(turn))
        path = _write(folder, f"turn{turn}.jpg", data)
        yield Case(f"jpeg turned {turn}", path, channels_first(blocks), decoded=said, tolerance=6)
    six = _stored(upright, 6)
    said = ("EXIF orientation 6 applied",)
    files = {
        "turn.tif": tiff(six.tobytes(), (5, 7), t258=(8, 8, 8), t262=2, t277=3, t274=6),
        "turn.webp": saved(six, "WEBP", lossless=True, exif=exif(6)),
        "turned late.png": png(six, late=chunk(b"eXIf", exif(6))),
    }
    for name, data in files.items():
        yield Case(name, _write(folder, name, data), channels_first(upright), decoded=said)
    data = png(upright, chunk(b"eXIf", exif(9)))
    yield Case("orientation 9", _write(folder, "turn9.png", data), channels_first(upright))
    data = png(upright, chunk(b"eXIf", b"no directory at all"))
    yield Case("broken exif", _write(folder, "exif.png", data), channels_first(upright), decoded=("EXIF is broken",))


def _profile(name: bytes, space: bytes) -> bytes:
    head = struct.pack(">I4sI4s4s4s", 200, b"none", 0x02100000, b"mntr", space, b"XYZ ")
    return (head.ljust(36, b"\0") + b"acsp" + b"\0" * 92 + name).ljust(200, b"\0")


def _colours(folder: Path) -> Make:
    inks = np.kron(noise(3, 4, 4), np.ones((16, 16, 1), np.uint8))
    light = (255 - inks.astype(float)) / 255
    printed = channels_first(255 * light[..., :3] * light[..., 3:])
    image = Image.frombytes("CMYK", (64, 48), inks.tobytes())
    press = _profile(b"Coated FOGRA39", b"CMYK")
    for kind, options, tolerance in (("JPEG", {"quality": 100}, 8), ("TIFF", {}, 1)):
        for profile in (None, press):
            said = ("CMYK converted to RGB", *(["colour profile ignored"] if profile else []))
            name = f"cmyk {'with' if profile else 'without'} profile.{kind.lower()}"
            path = _write(folder, name, saved(image, kind, icc_profile=profile, **options))
            yield Case(name, path, printed, decoded=said, tolerance=tolerance)
    colour = noise(6, 5, 3)
    for name, label, said in (
        ("srgb", b"sRGB IEC61966-2.1", ()),
        ("srgb 4", "sRGB built-in".encode("utf-16-be"), ()),
        ("p3", b"Display P3", ("colour profile ignored",)),
    ):
        data = png(colour, chunk(b"iCCP", b"icc\0\0" + zlib.compress(_profile(label, b"RGB "))))
        yield Case(f"profile {name}", _write(folder, f"{name}.png", data), channels_first(colour), decoded=said)
    palette, places = noise(16, 3), noise(5, 6, top=16)
    data = png(places, chunk(b"PLTE", palette.tobytes()), colour=3)
    painted = channels_first(palette[places])
    yield Case("palette", _write(folder, "palette.png", data), painted, decoded=("palette converted to RGB",))
    dots = noise(5, 11, top=2)
    said = ("1-bit converted to 8-bit grey",)
    data = png(dots, depth=1, colour=0)
    yield Case("1 bit png", _write(folder, "dots.png", data), channels_first(dots * 255), decoded=said)
    rows = np.packbits(1 - dots, axis=1).tobytes()
    yield Case("pbm", _write(folder, "a.pbm", b"P4 11 5\n" + rows), channels_first(dots * 255), decoded=said)
    four = noise(4, 5, top=16)
    yield Case("4 bit png", _write(folder, "four.png", png(four, depth=4, colour=0)), channels_first(four * 17))
    lab = np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8)
    path = _write(folder, "lab.tif", tiff(lab.tobytes(), (2, 1), t258=(8, 8, 8), t262=8, t277=3))
    ends = channels_first(np.array([[[0, 0, 0], [255, 255, 255]]]))
    yield Case("lab", path, ends, decoded=("LAB converted to RGB",), tolerance=2)
    for kind in ("BMP", "PPM", "TIFF"):
        yield Case(kind, _write(folder, f"a.{kind.lower()}", saved(colour, kind)), channels_first(colour))
    for kind, options in (("WEBP", {"lossless": True}), ("JPEG2000", {})):
        yield Case(kind, _write(folder, f"a.{kind.lower()}", saved(colour, kind, **options)), channels_first(colour))
    smooth = np.kron(noise(2, 3, 3), np.ones((16, 16, 1), np.uint8))
    data = saved(smooth, "AVIF", quality=95, subsampling="4:4:4")
    yield Case("avif", _write(folder, "a.avif", data), channels_first(smooth), tolerance=12)
    grey = noise(6, 7)
    yield Case("grey jpeg", _write(folder, "g.jpg", saved(grey, "JPEG", quality=100)), grey[None], tolerance=4)
    said = ()
    inverse = tiff((255 - grey).tobytes(), (7, 6), t262=0)
    yield Case("8 bit white is zero", _write(folder, "white0.tif", inverse), grey[None], decoded=said)


def _alphas(folder: Path) -> Make:
    said = ("alpha composited on white",)
    for name, pixels, colour in (("la", noise(16, 16, 2), 4), ("rgba", noise(16, 17, 4), 6)):
        data = png(pixels, colour=colour)
        yield Case(name, _write(folder, f"{name}.png", data), on_white(pixels), decoded=said)
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
    yield Case("every alpha", _write(folder, "all.png", png(every, colour=4)), on_white(every), decoded=said)
    rgba = noise(6, 8, 4)
    rgba[0, :3, 3] = 0
    path = _write(folder, "a4.webp", saved(rgba, "WEBP", lossless=True, exact=True))
    yield Case("webp with alpha", path, on_white(rgba), decoded=said)
    palette, places, alphas = noise(16, 3), noise(5, 6, top=16), noise(16)
    seen = np.concatenate([palette[places], alphas[places][..., None]], -1)
    data = png(places, chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", alphas.tobytes()), colour=3)
    both = ("palette converted to RGB", *said)
    yield Case("palette with alphas", _write(folder, "palphas.png", data), on_white(seen), decoded=both)
    data = png(places, chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", b"\xff\xff\0"), colour=3)
    one = np.where((places == 2)[..., None], 255, palette[places]).astype(np.uint8)
    yield Case("palette with one clear", _write(folder, "pclear.png", data), channels_first(one), decoded=both)
    for depth in (1, 4, 8):
        grey, step = noise(4, 7, top=2**depth), 255 // (2**depth - 1)
        key = 2**depth - 2
        data = png(grey, chunk(b"tRNS", struct.pack(">H", key)), depth=depth, colour=0)
        seen = np.where(grey == key, 255, grey * step)[None]
        words = (("1-bit converted",) if depth == 1 else ()) + said
        yield Case(f"clear grey {depth}", _write(folder, f"clear{depth}.png", data), seen, decoded=words)
    colour = noise(5, 9, 3)
    key = colour[2, 3]
    data = png(colour, chunk(b"tRNS", struct.pack(">HHH", *key)))
    seen = channels_first(np.where((colour == key).all(-1, keepdims=True), 255, colour))
    yield Case("clear colour", _write(folder, "clearrgb.png", data), seen, decoded=said)
    deep = noise(5, 9, 3, top=65536)
    key = deep[2, 3]
    data = png(deep, chunk(b"tRNS", struct.pack(">HHH", *key)), depth=16)
    seen = channels_first(np.where((deep == key).all(-1, keepdims=True), 255, deep >> 8))
    words = ("16-bit samples reduced to 8 bits", *said)
    yield Case("clear 16 bit colour", _write(folder, "clearrgb16.png", data), seen, decoded=words)
    deep = noise(4, 6, top=65536)
    data = png(deep, chunk(b"tRNS", struct.pack(">H", deep[1, 1])), depth=16, colour=0)
    seen = np.where(deep == deep[1, 1], np.float32(1), divided(deep, 65535))
    yield Case("clear 16 bit", _write(folder, "clear16.png", data), seen, decoded=("scaled by 16 bits", *said))


def _deep_pngs(folder: Path) -> Make:
    for bits, used in ((8, 8), (9, 10), (10, 10), (11, 12), (12, 12), (13, 14), (14, 14), (15, 16), (16, 16)):
        values = noise(6, 9, top=2**bits)
        path = _write(folder, f"deep{bits}.png", png(values, depth=16, colour=0))
        yield Case(
            f"{bits} of 16", path, divided(values, 2**used - 1), decoded=(f"16-bit grey scaled by {used} bits",)
        )
    for top, used in ((257, 10), (4097, 14)):
        values = noise(6, 9, top=top)
        path = _write(folder, f"just{top}.png", png(values, depth=16, colour=0))
        yield Case(f"just above {top - 2}", path, divided(values, 2**used - 1), decoded=(f"by {used} bits",))
    dark = noise(5, 5, top=900)
    for bits, said in ((12, "12 bits, as the file states"), (16, "16 bits, as the file states")):
        path = _write(folder, f"sbit raw {bits}.png", png(dark, chunk(b"sBIT", bytes([bits])), depth=16, colour=0))
        yield Case(f"sbit {bits} raw", path, divided(dark, 2**bits - 1), decoded=(said,))
    twelve = noise(5, 6, top=4096)
    conforming = (twelve << 4) | (twelve >> 8)
    path = _write(folder, "sbit scaled.png", png(conforming, chunk(b"sBIT", b"\x0c"), depth=16, colour=0))
    yield Case("sbit 12 scaled", path, divided(conforming, 65535), decoded=("scaled by 16 bits, as the file states",))
    path = _write(folder, "asked.png", png(dark, depth=16, colour=0))
    yield Case("bits asked for", path, divided(dark, 16383), decoded=("14 bits, as asked for",), bits=14)
    yield Case("too few bits asked for", path, error="bits=10", bits=9)
    eight = noise(4, 4)
    path = _write(folder, "eight.png", png(eight, colour=0))
    yield Case("bits asked of 8 bit", path, eight[None], bits=12)
    full = noise(4, 5, top=65536)
    path = _write(folder, "late.png", png(full, chunk(b"teSt", bytes(2 << 20)), depth=16, colour=0))
    yield Case("2 MiB before the pixels", path, divided(full, 65535), decoded=("scaled by 16 bits",))
    said = ("16-bit samples reduced to 8 bits",)
    deep = noise(7, 6, 3, top=65536)
    path = _write(folder, "rgb16.png", png(deep, depth=16))
    yield Case("16 bit colour", path, channels_first(deep >> 8), decoded=said)
    deep = noise(7, 6, 2, top=65536)
    path = _write(folder, "la16.png", png(deep, depth=16, colour=4))
    seen = on_white((deep >> 8).astype(np.uint8))
    yield Case("16 bit grey and alpha", path, seen, decoded=(*said, "alpha composited on white"))


def _deep_tiffs(folder: Path) -> Make:
    dark, twelve = noise(4, 6, top=900), noise(4, 6, top=4096)
    full = noise(4, 6, top=65536)
    little = {
        "states 4095": (dark, {"t281": 4095}, 4095, "12 bits, as the file states"),
        "states too little": (twelve, {"t281": 1023}, 4095, "12 bits, the fewest"),
        "states nothing": (full, {}, 65535, "16 bits, the fewest"),
    }
    for name, (values, tags, largest, said) in little.items():
        path = _write(folder, f"{name}.tif", tiff(values.tobytes(), (6, 4), t258=16, **tags))
        yield Case(f"tiff {name}", path, divided(values, largest), decoded=(said,))
    path = _write(folder, "big.tif", tiff(twelve.astype(">u2").tobytes(), (6, 4), ">", t258=16))
    yield Case("tiff big-endian", path, divided(twelve, 4095), decoded=("scaled by 12 bits",))
    bits = (dark[..., None] >> np.arange(12)[::-1]) & 1
    packed = np.packbits(bits.reshape(4, -1).astype(np.uint8), axis=1).tobytes()
    path = _write(folder, "packed.tif", tiff(packed, (6, 4), t258=12))
    yield Case("tiff 12 bits packed", path, divided(dark, 4095), decoded=("12 bits, as the file states",))
    path = _write(folder, "white16.tif", tiff(full.tobytes(), (6, 4), t258=16, t262=0))
    seen = 1 - divided(full, 65535)
    yield Case("tiff white is zero", path, seen, decoded=("scaled by 16 bits", "white-is-zero grey inverted"))
    wide = dark.astype("<u4").tobytes()
    yield Case(
        "tiff 32 bits",
        _write(folder, "wide.tif", tiff(wide, (6, 4), t258=32)),
        divided(dark, 1023),
        decoded=("32-bit grey scaled by 10 bits",),
    )
    deep = noise(4, 6, 3, top=65536)
    path = _write(folder, "rgb16.tif", tiff(deep.tobytes(), (6, 4), t258=(16, 16, 16), t262=2, t277=3))
    yield Case("tiff 16 bit colour", path, channels_first(deep >> 8), decoded=("reduced to 8 bits",))
    unit = (noise(4, 6) / np.float32(255)).astype(np.float32)
    path = _write(folder, "float.tif", tiff(unit.tobytes(), (6, 4), t258=32, t339=3))
    yield Case("tiff floats", path, unit[None])
    path = _write(folder, "float white.tif", tiff(unit.tobytes(), (6, 4), t258=32, t339=3, t262=0))
    yield Case("tiff floats, white is zero", path, 1 - unit[None], decoded=("white-is-zero grey inverted",))
    # Encoded as 16 bits around the middle, and then declared to have 12: the level shift is all that changes.
    data = bytearray(saved(twelve + np.uint16(32768 - 2048), "JPEG2000"))
    data[data.index(b"\xff\x4f\xff\x51") + 42] = data[data.index(b"ihdr") + 14] = 11
    path = _write(folder, "twelve.jp2", bytes(data))
    yield Case("jpeg 2000 of 12 bits", path, divided(twelve, 4095), decoded=("12 bits, as the file states",))


def _netpbm(folder: Path) -> Make:
    dark = noise(5, 6, top=900)
    for maxval, said in ((4095, "12 bits"), (65535, "16 bits"), (1000, "allowed value 1000"), (900, "value 900")):
        data = b"P5\n# x\n6 5\n%d\n" % maxval + dark.astype(">u2").tobytes()
        yield Case(f"pgm {maxval}", _write(folder, f"{maxval}.pgm", data), divided(dark, maxval), decoded=(said,))
    data = b"P2 6 5 4095\n" + b" ".join(b"%d" % value for value in dark.flat) + b"\n"
    yield Case("pgm in letters", _write(folder, "plain.pgm", data), divided(dark, 4095), decoded=("12 bits",))
    data = b"P5\n6 5\n65535\n" + dark.astype(">u2").tobytes()
    path = _write(folder, "asked.pgm", data)
    yield Case("pgm, bits asked for", path, divided(dark, 1023), decoded=("10 bits, as asked",), bits=10)
    deep = noise(5, 6, 3, top=65536)
    data = b"P6\n6 5\n65535\n" + deep.astype(">u2").tobytes()
    seen = channels_first(np.round(deep / 257))
    yield Case("ppm of 16 bits", _write(folder, "deep.ppm", data), seen, decoded=("16-bit samples reduced",))
    unit = (noise(5, 6) / np.float32(255)).astype("<f4")
    data = b"Pf\n6 5\n-1.0\n" + unit[::-1].tobytes()
    yield Case("pfm", _write(folder, "a.pfm", data), unit[None])


def _frames(folder: Path) -> Make:
    palette = noise(256, 3)
    frames = [Image.fromarray(noise(6, 7 + k)[:, :7]) for k in range(5)]
    first = np.asarray(frames[0])
    for frame in frames:
        frame.putpalette(palette.tobytes())
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], optimize=False)
    said = ("first of 5 frames", "palette converted to RGB")
    yield Case("gif animated", _write(folder, "a.gif", data), channels_first(palette[first]), decoded=said)
    path = _write(folder, "clear.gif", saved(frames[0], "GIF", optimize=False, transparency=int(first[1, 1])))
    seen = np.where((first == first[1, 1])[..., None], 255, palette[first])
    said = ("palette converted to RGB", "alpha composited on white")
    yield Case("gif transparent", path, channels_first(seen), decoded=said)
    grey = noise(4, 6)
    data = tiff(grey.tobytes(), (6, 4))
    lost = data[:-4] + struct.pack("<I", 9999)
    path = _write(folder, "lost.tif", lost)
    yield Case("second frame lost", path, grey[None], decoded=("first frame, the ones behind it are broken",))
    colours = [noise(6, 7, 3) + np.uint8(40 * k) for k in range(3)]
    rest = [Image.fromarray(colour) for colour in colours[1:]]
    kinds = (("PNG", {"default_image": False}), ("WEBP", {"lossless": True}), ("TIFF", {}))
    for kind, options in kinds:
        data = saved(colours[0], kind, save_all=True, append_images=rest, **options)
        path = _write(folder, f"frames.{kind.lower()}", data)
        yield Case(f"{kind} of 3 frames", path, channels_first(colours[0]), decoded=("first of 3 frames",))


def _shapes_and_names(folder: Path) -> Make:
    for height, width in ((1, 1), (3, 5000), (5000, 1)):
        pixels = noise(height, width, 3)
        path = _write(folder, f"{height}x{width}.png", png(pixels))
        yield Case(f"{height} x {width}", path, channels_first(pixels))
    pixels = noise(3, 4, 3)
    names = ("png named.jpg", "no suffix", "a\nb.png", "\"quoted'.png", "<script>alert(1)<%2Fscript>.png")
    names += ("\u202egnp.exe", "=cmd().png", "%2e%2e%2f.png", "-rf.png", "{0}.png", " .png", "n" * 240 + ".png")
    for name in names:
        yield Case(f"name {name!r:.20}", _write(folder, name, png(pixels)), channels_first(pixels))
    (folder / "inner").mkdir()
    (folder / "inner" / "link.png").symlink_to(folder / "no suffix")
    yield Case("symlink", folder / "inner" / "link.png", channels_first(pixels))


def _cut(folder: Path) -> Make:
    pixels = noise(32, 40, 3)
    whole = {"jpg": saved(pixels, "JPEG"), "progressive.jpg": saved(pixels, "JPEG", progressive=True)}
    whole["png"] = png(pixels)
    for kind, data in whole.items():
        for tenth in range(1, 10):
            path = _write(folder, f"cut{tenth}.{kind}", data[: len(data) * tenth // 10])
            yield Case(f"{kind} cut at {tenth}0 %", path, error="cut short" if tenth > 3 else "broken")
    halves = {kind: saved(pixels, kind) for kind in ("GIF", "TIFF", "BMP", "WEBP", "AVIF", "JPEG2000", "PPM")}
    halves["PGM"] = b"P5 40 32 4095\n" + noise(32, 80).tobytes()
    halves["LZW"] = saved(pixels, "TIFF", compression="tiff_lzw")
    for kind, data in halves.items():
        yield Case(f"{kind} cut at half", _write(folder, f"half.{kind}", data[: len(data) // 2]), error="broken")
    strip = tiff(noise(4, 6).tobytes(), (6, 4000), t278=4)
    yield Case("tiff without its other strips", _write(folder, "strips.tif", strip), error="strips are missing")
    yield Case("empty", _write(folder, "empty.jpg", b""), error="empty")
    yield Case("head alone", _write(folder, "head.png", png(pixels)[:8]), error="broken")
    data = png(pixels).replace(b"IHDR", b"IHDX")
    yield Case("no header chunk", _write(folder, "ihdx.png", data), error="broken")
    data = bytearray(png(pixels))
    data[len(data) // 2] ^= 1
    yield Case("flipped bit", _write(folder, "flip.png", bytes(data)), error="broken")


def _fakes(folder: Path) -> Make:
    starts = {
        "text.jpg": (b"This is no picture.\nIt is text.\n", "text"),
        "page.png": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
        "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "a.pdf.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "PDF"),
        "a.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"),
        "a.dcm": (bytes(128) + b"DICM" + bytes(64), "DICOM"),
        "a.npy": (b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "numpy"),
        "a.zip": (b"PK\3\4\x14\0\0\0", "archive"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        "noise.jpg": (bytes(range(1, 256)) * 4, "not a picture"),
        "zeros.png": (bytes(1000), "not a picture"),
        "a.ico": (saved(noise(16, 16, 4), "ICO"), "icon"),
        "a.tga": (saved(noise(16, 16, 3), "TGA"), "not a picture"),
    }
    for name, (data, word) in starts.items():
        yield Case(f"fake {name}", _write(folder, name, data), error=word)


def _bombs(folder: Path) -> Make:
    def head(width: int, height: int) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    row = chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    yield Case("png bomb", _write(folder, "bomb.png", head(60000, 60000) + row), error="too large")
    # Pillow itself only warns of these.
    yield Case("png just too large", _write(folder, "bomb2.png", head(9460, 9460) + row), error="too large")
    data = b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0x80, 0, 0) + bytes(6)
    data += b"," + struct.pack("<HHHHB", 0, 0, 60000, 60000, 0) + b"\x02\x02\x4c\x01\0;"
    yield Case("gif bomb", _write(folder, "bomb.gif", data), error="too large")
    data = b"BM" + struct.pack("<IHHI", 154, 0, 0, 54)
    data += struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    yield Case("bmp bomb", _write(folder, "bomb.bmp", data), error="too large")
    path = _write(folder, "bomb.tif", tiff(zlib.compress(bytes(10_000)), (60000, 60000), t259=8))
    yield Case("tiff bomb", path, error="too large")
    canvas = struct.pack("<I", 2) + (12999).to_bytes(3, "little") * 2
    frame = bytes(6) + (9).to_bytes(3, "little") * 2 + bytes(4)
    frame += saved(noise(10, 10, 3), "WEBP", lossless=True)[12:]
    parts = ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", frame))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(part)) + part for kind, part in parts)
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    yield Case("webp bomb", _write(folder, "bomb.webp", data), error="too large")
    yield Case("pgm bomb", _write(folder, "bomb.pgm", b"P5 99999 99999 255\n" + bytes(100)), error="too large")
    huge = zlib.compress(bytes(100 << 20), 9)
    for kind, lead in ((b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0"), (b"iCCP", b"icc\0\0")):
        data = png(noise(3, 3, 3), chunk(kind, lead + huge))
        yield Case(f"{kind.decode()} bomb", _write(folder, f"{kind.decode()}.png", data), error="too large")
    data = head(2, 1) + chunk(b"IDAT", huge) + chunk(b"IEND", b"")
    yield Case("pixels bomb", _write(folder, "idat.png", data), np.zeros((3, 1, 2), np.uint8))
    for name, start in (("sparse", b""), ("sparse picture", png(noise(3, 3, 3)))):
        path = _write(folder, f"{name}.png", start)
        os.truncate(path, FOUR_GIB)
        yield Case(name, path, error="too large")


def _no_files(folder: Path) -> Make:
    yield Case("missing", folder / "school_bus.jpg", error="there is no file")
    yield Case("missing folder", folder / "nowhere" / "a.jpg", error="there is no file")
    yield Case("inside a file", folder / "no suffix" / "a.jpg", error="there is no file")
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    yield Case("dangling symlink", folder / "dangling.png", error="link")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    yield Case("symlink loop", folder / "loop.png", error="cannot be opened")
    yield Case("name too long", folder / ("n" * 300), error="cannot be opened")
    yield Case("nul in name", folder / "a\0.png", error="cannot be opened")
    (folder / "folder.png").mkdir()
    yield Case("folder", folder / "folder.png", error="folder")
    os.mkfifo(folder / "pipe.png")
    yield Case("pipe", folder / "pipe.png", error="pipe")
    yield Case("device", Path("/dev/zero"), error="device")


def _meaningless(folder: Path) -> Make:
    ones = np.ones((4, 6), np.float32)
    ones[1, 1] = 255
    yield Case("floats to 255", _write(folder, "f255.tif", _floats(ones)), error="255")
    ones[1, 1] = np.nan
    yield Case("nan", _write(folder, "nan.tif", _floats(ones)), error="nan")
    ones[1, 1] = -np.inf
    yield Case("infinity", _write(folder, "inf.tif", _floats(ones)), error="inf")
    wide = np.full((4, 6), 70000, "<u4").tobytes()
    yield Case("32 bits used", _write(folder, "u32.tif", tiff(wide, (6, 4), t258=32)), error="70000")
    signed = np.full((4, 6), -5, "<i2").tobytes()
    yield Case("negative", _write(folder, "neg.tif", tiff(signed, (6, 4), t258=16, t339=2)), error="-5")
    none = bytearray(png(noise(3, 3, 3)))
    none[16:20] = bytes(4)
    none[29:33] = struct.pack(">I", zlib.crc32(none[12:29]))
    empty = {"png": bytes(none), "gif": b"GIF89a" + bytes(7), "pgm": b"P5 0 0 255\n"}
    for kind, data in empty.items():
        yield Case(f"no pixels, {kind}", _write(folder, f"zero.{kind}", data), error="picture")
    five = tiff(bytes(120), (6, 4), t258=(8, 8, 8, 8, 8), t262=2, t277=5)
    yield Case("five channels", _write(folder, "five.tif", five), error="picture")


def _floats(values: np.ndarray) -> bytes:
    return tiff(values.tobytes(), values.shape[::-1], t258=32, t339=3)
