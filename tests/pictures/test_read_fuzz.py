"""Whatever a file holds: a picture with finite pixels in range, or a PictureError, and soon."""

import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpus import channels_first, chunk, exif, noise, png, saved, tiff
from whence.errors import PictureError
from whence.pictures.read import read

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]

COUNT = 160
_GREY, _COLOUR = noise(6, 9, top=4096), noise(9, 8, 3)
_FRAMES = [Image.fromarray(noise(6, 7 + k, 3)[:, :7]) for k in range(3)]
_ANIMATED = {"save_all": True, "append_images": _FRAMES[1:]}

SEEDS = {
    "png": png(_COLOUR, chunk(b"eXIf", exif(6)), chunk(b"tRNS", bytes(6))),
    "palette": png(noise(5, 6, top=16), chunk(b"PLTE", noise(16, 3).tobytes()), chunk(b"tRNS", b"\1\2"), colour=3),
    "png16": png(_GREY, chunk(b"sBIT", b"\x0c"), depth=16, colour=0),
    "apng": saved(_FRAMES[0], "PNG", **_ANIMATED),
    "jpeg": saved(_COLOUR, "JPEG", exif=b"Exif\0\0" + exif(5), icc_profile=bytes(40)),
    "progressive": saved(_COLOUR, "JPEG", progressive=True),
    "mpo": saved(_FRAMES[0], "MPO", **_ANIMATED),
    "gif": saved(_FRAMES[0].quantize(8), "GIF", save_all=True, append_images=[_FRAMES[1].quantize(8)]),
    "tiff": tiff(_COLOUR.tobytes(), (8, 9), t258=(8, 8, 8), t262=2, t277=3, t274=6),
    "tiff16": tiff(_GREY.tobytes(), (9, 6), t258=16, t281=4095),
    "lzw": saved(_COLOUR, "TIFF", compression="tiff_lzw"),
    "deflate": saved(_COLOUR, "TIFF", compression="tiff_deflate"),
    "tiff jpeg": saved(_COLOUR, "TIFF", compression="jpeg"),
    "floats": tiff((noise(4, 5) / np.float32(255)).tobytes(), (5, 4), t258=32, t339=3),
    "bmp": saved(_COLOUR, "BMP"),
    "webp": saved(_FRAMES[0], "WEBP", lossless=True, **_ANIMATED),
    "avif": saved(_COLOUR, "AVIF", speed=10),
    "jpeg2000": saved(_COLOUR, "JPEG2000"),
    "pgm": b"P5 9 6 4095\n" + _GREY.astype(">u2").tobytes(),
    "letters": b"P3 2 2 255\n" + b"1 2 3\n4 5 6\n7 8 9\n255 0 9\n",
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Flip, cut, insert, repeat or overwrite up to three times."""
    new = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(new) + 1))
        length = int(random.integers(1, 9))
        match random.integers(6):
            case 0:
                new[place : place + 1] = bytes([random.integers(256)])
            case 1:
                del new[place : place + length]
            case 2:
                new[place:place] = random.bytes(length)
            case 3:
                new[place : place + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"][random.integers(3)]
            case 4:
                new[place:place] = new[place : place + 8 * length]
            case 5:
                # Headers are short, and hold what does harm.
                place = int(random.integers(min(len(new), 64) + 1))
                new[place : place + 1] = bytes([1 << random.integers(8)])
    return bytes(new) if random.integers(8) else bytes(new[: random.integers(len(new) + 1)])


def outcome(source: bytes | Path) -> str:
    """Read, and check what is promised of a picture and of an error."""
    try:
        picture = read(source)
    except PictureError as error:
        return "error" if str(error).isprintable() else f"unprintable: {error!r}"
    channels, height, width = picture.pixels.shape
    assert channels in (1, 3)
    assert min(height, width) > 0
    assert picture.pixels.dtype in (torch.uint8, torch.float32)
    unit = picture.unit()
    assert bool(((unit >= 0) & (unit <= 1)).all())
    return "picture"


@pytest.mark.parametrize("kind", SEEDS)
def test_mutations(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(sorted(SEEDS).index(kind))
    outcomes: Counter[str] = Counter()
    for count in range(COUNT):
        data = mutated(SEEDS[kind], random)
        start = time.monotonic()
        # Some decoders read files by their descriptor, and bytes otherwise.
        if count % 2:
            (tmp_path / "a").write_bytes(data)
        outcomes[outcome(tmp_path / "a" if count % 2 else data)] += 1
        assert time.monotonic() - start < 2
    assert set(outcomes) == {"error", "picture"}
    # A mutation that breaks nothing would test nothing.
    assert outcomes["error"] >= COUNT // 20


def test_seeds_are_read() -> None:
    for kind, data in SEEDS.items():
        assert read(io.BytesIO(data)).pixels.numel() > 0, kind
    np.testing.assert_array_equal(read(SEEDS["bmp"]).pixels.numpy(), channels_first(_COLOUR))
