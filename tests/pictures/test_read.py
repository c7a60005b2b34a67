"""Every file of the corpus, and every other kind of source, gives its exact pixels or a PictureError."""

import hashlib
import io
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from corpus import FOUR_GIB, Case, channels_first, corpus, divided, noise, on_white, png, saved
from whence.errors import OptionError, PictureError
from whence.pictures import decode
from whence.pictures import read as reader
from whence.pictures.read import Picture, read

# Without the check of types that tests may wrap around it, so that wrong ones get as far as the reader.
read_anything = getattr(read, "__wrapped__", read)

FOLDER = tempfile.TemporaryDirectory(prefix="whence-corpus-")
CASES = corpus(Path(FOLDER.name))
GOOD = [case for case in CASES if case.error is None]
BAD = [case for case in CASES if case.error is not None]

pytestmark = [
    # Both are Pillow's, about the files that are broken on purpose.
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]


@pytest.fixture(scope="module", autouse=True)
def _remove_corpus() -> Iterator[None]:
    yield
    FOLDER.cleanup()


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def check(picture: Picture, case: Case) -> None:
    assert case.pixels is not None
    assert picture.pixels.dtype == (torch.float32 if case.pixels.dtype == np.float32 else torch.uint8)
    assert picture.pixels.shape == case.pixels.shape
    assert picture.size == case.pixels.shape[1:]
    found = picture.pixels.numpy()
    if case.tolerance:
        assert np.abs(found - case.pixels.astype(float)).max() <= case.tolerance
    else:
        np.testing.assert_array_equal(found, case.pixels)
    assert len(picture.decoded) == len(case.decoded), picture.decoded
    for words, sentence in zip(case.decoded, picture.decoded, strict=True):
        assert words in sentence


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({case.path for case in GOOD}) >= 60


@pytest.mark.parametrize("case", GOOD, ids=lambda case: ascii(case.name))
def test_good_file(case: Case) -> None:
    picture = read(case.path, bits=case.bits)
    check(picture, case)
    assert picture.sha256 == hashlib.sha256(case.path.read_bytes()).hexdigest()
    assert picture.name == case.path.name


@pytest.mark.parametrize("case", BAD, ids=lambda case: ascii(case.name))
def test_bad_file(case: Case) -> None:
    start = time.monotonic()
    with pytest.raises(PictureError) as caught:
        read(case.path, bits=case.bits)
    message = str(caught.value)
    assert case.error in message
    assert repr(case.path.name)[1:-1] in message
    assert message.isprintable()
    assert ": " in message
    assert time.monotonic() - start < 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_file_is_left_open() -> None:
    def open_files() -> list[str]:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return [os.readlink(link) for link in links if os.path.islink(link)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for case in CASES:
            with suppress(PictureError):
                read(case.path, bits=case.bits)
            assert not any(place.startswith(FOLDER.name) for place in open_files()), case.name


def test_bytes_and_file_objects_give_what_the_path_gives() -> None:
    for case in GOOD:
        data = case.path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        file = io.BytesIO(data)
        file.read()
        for source in (data, file, str(case.path)):
            picture = read(source, bits=case.bits, name="x")
            check(picture, case)
            assert (picture.sha256, picture.name) == (digest, "x")
        assert not file.closed
        assert read(data, bits=case.bits).name == "picture"


def test_bad_bytes_fail_like_the_file() -> None:
    small = {entry.path for entry in os.scandir(FOLDER.name) if entry.is_file(follow_symlinks=False)}
    bad = [case for case in BAD if str(case.path) in small and case.path.stat().st_size < FOUR_GIB]
    assert len(bad) > 60
    for case in bad:
        with pytest.raises(PictureError):
            read(case.path.read_bytes(), bits=case.bits)


def test_warnings_as_errors_change_no_outcome() -> None:
    for case in CASES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                check(read(case.path, bits=case.bits), case)
            except PictureError:
                assert case.error is not None, case.name


def test_eight_threads_read_what_one_reads() -> None:
    cases = GOOD * 8
    random.Random(0).shuffle(cases)
    with ThreadPoolExecutor(8) as pool:
        for case, picture in zip(cases, pool.map(lambda c: read(c.path, bits=c.bits), cases), strict=True):
            check(picture, case)


def test_nothing_global_is_touched() -> None:
    def state() -> tuple[object, ...]:
        return (
            Image.MAX_IMAGE_PIXELS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
            list(warnings.filters),
            torch.get_rng_state().sum(),
        )

    before = state()
    for case in CASES:
        with suppress(PictureError):
            read(case.path)
    assert state() == before


def test_a_user_who_loads_truncated_files_still_does(monkeypatch: pytest.MonkeyPatch) -> None:
    path = named("jpg cut at 70 %").path
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert read(path).size == (32, 40)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


HUGE = [case for case in BAD if case.error == "too large"]


def test_bombs_allocate_nothing_large() -> None:
    assert len(HUGE) >= 10
    for case in HUGE:
        tracemalloc.start()
        with pytest.raises(PictureError):
            read(case.path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20, case.name


def test_bombs_take_no_memory_outside_python_either() -> None:
    script = (
        "import resource, sys, warnings; warnings.simplefilter('ignore')\n"
        "from whence.errors import PictureError\n"
        "from whence.pictures.read import read\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read(sys.argv[1]); before = peak()\n"
        "for path in sys.argv[2:]:\n"
        "    try: read(path); sys.exit('read: ' + path)\n"
        "    except PictureError: pass\n"
        "print((peak() - before) // 1024)\n"
    )
    paths = [str(named("rgba").path), *(str(case.path) for case in HUGE)]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(png(noise(3, 3, 3)))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PictureError, match=r"private\.png' may not be read"):
            read(path)
    finally:
        os.seteuid(user)


def test_showing_and_scaling() -> None:
    grey = read(noise(4, 5))
    assert grey.rgb8().shape == (4, 5, 3)
    assert grey.rgb8().dtype == np.uint8
    np.testing.assert_array_equal(grey.rgb8()[..., 2], noise(4, 5))
    np.testing.assert_array_equal(grey.unit().numpy(), divided(noise(4, 5), 255))
    colour = noise(4, 5, 3)
    np.testing.assert_array_equal(read(colour).rgb8(), colour)
    deep = read(np.array([[0.0, 0.5, 1.0, 0.2]]))
    assert deep.rgb8()[0, :, 0].tolist() == [0, 128, 255, 51]
    assert deep.unit() is deep.pixels


ARRAYS = {
    "grey": (noise(4, 5), noise(4, 5)[None], ()),
    "one channel": (noise(4, 5)[..., None], noise(4, 5)[None], ()),
    "colour": (noise(4, 5, 3), channels_first(noise(4, 5, 3)), ()),
    "alpha": (noise(4, 5, 4), on_white(noise(4, 5, 4)), ("alpha composited on white",)),
    "negative strides": (noise(4, 5, 3)[::-1, ::2], channels_first(noise(4, 5, 3)[::-1, ::2]), ()),
    "float32": (divided(noise(4, 5), 255)[0], divided(noise(4, 5), 255), ()),
    "float64": (noise(4, 5) / 255, (noise(4, 5) / 255).astype(np.float32)[None], ()),
    "float16": (np.float16([[0, 0.5, 1]]), np.float32([[[0, 0.5, 1]]]), ()),
    "clear float": (np.float32([[[0.2, 0.4, 0.6, 0.0]]]), np.ones((3, 1, 1), np.float32), ("alpha composited",)),
    "half clear float": (np.float32([[[0, 0.5, 1, 0.5]]]), np.float32([[[0.5]], [[0.75]], [[1]]]), ("alpha",)),
    "uint16": (
        noise(4, 5, top=4096),
        divided(noise(4, 5, top=4096), 4095),
        ("16-bit grey scaled by 12 bits",),
    ),
    "uint16 of the other byte order": (
        noise(4, 5, top=4096).astype(noise(1, top=999).dtype.newbyteorder()),
        divided(noise(4, 5, top=4096), 4095),
        ("16-bit grey scaled by 12 bits",),
    ),
    "uint16 colour": (
        noise(4, 5, 3, top=65536),
        channels_first(divided(noise(4, 5, 3, top=65536), 65535)[0]),
        ("16-bit colour scaled by 16 bits",),
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays(name: str, kind: str) -> None:
    array, expected, said = ARRAYS[name]
    if kind == "torch":
        array = array.astype(array.dtype.newbyteorder("="))
        source = torch.from_numpy(np.ascontiguousarray(channels_first(array) if array.ndim == 3 else array))
        before = source.clone()
    else:
        source, before = array, array.copy()
    picture = read(source)
    check(picture, Case(name, Path(), expected, decoded=said))
    assert bool((source == before).all())
    picture.pixels.zero_()
    assert bool((source == before).all())


def test_tensors_of_other_kinds() -> None:
    unit = torch.tensor([[[0.0, 0.5, 1.0]]])
    for source in (unit.bfloat16(), unit.requires_grad_(), unit.double()):
        assert read(source).pixels.tolist() == [[[0.0, 0.5, 1.0]]]
        assert not read(source).pixels.requires_grad


def test_bits_of_arrays() -> None:
    values = noise(4, 5, top=900)
    np.testing.assert_array_equal(read(values, bits=16).pixels.numpy(), divided(values, 65535))
    with pytest.raises(PictureError, match="up to 899, more than the 9 bits"):
        read(values, bits=9)
    with pytest.raises(PictureError, match="up to 512, more than the 9 bits"):
        read(noise(4, 5, top=513), bits=9)
    for bits in (0, 17, -1, 2.5, "12"):
        with pytest.raises(OptionError, match="bits="):
            read_anything(values, bits=bits)


BAD_ARRAYS = {
    "channels first": (noise(3, 40, 50), r"shape \[3, 40, 50\] of uint8.*transpose\(1, 2, 0\)"),
    "channels last": (torch.zeros(40, 50, 3), r"\[40, 50, 3\] of float32.*permute\(2, 0, 1\)"),
    "two channels": (noise(4, 5, 2), r"C = 1, 3 or 4.*\[4, 5, 2\]"),
    "batch": (torch.zeros(1, 3, 4, 5), "one picture at a time"),
    "one dimension": (np.zeros(5), r"shape \[5\] of float64"),
    "no dimension": (np.zeros(()), r"shape \[\]"),
    "no pixels": (np.zeros((0, 5)), r"shape \[0, 5\]"),
    "no columns": (torch.zeros(3, 4, 0), r"shape \[3, 4, 0\]"),
    "to 255": (noise(4, 5, 3).astype(float), "values from 0 to 255: divide it by 255"),
    "normalised": (np.array([[-2.1, 2.6]]), r"from -2\.1 to 2\.6: undo the normalisation"),
    "just above 1": (np.array([[0, 1.001]]), "from 0 to 1.001"),
    "nan": (np.array([[0, np.nan]]), "remove NaN"),
    "infinity": (torch.tensor([[0, torch.inf]]), "infinity"),
    "int64": (noise(4, 5).astype(int), "int64.*divide it by 255"),
    "bool": (noise(4, 5) > 9, "bool"),
    "complex": (np.zeros((4, 5), complex), "complex128"),
    "text": (np.array([["a"]]), "<U1"),
    "objects": (np.array([[None]]), "object"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(name: str) -> None:
    source, words = BAD_ARRAYS[name]
    with pytest.raises(PictureError, match=words):
        read(source)


def test_hash_of_pixels() -> None:
    colour = noise(4, 5, 3)
    alike = (colour, torch.from_numpy(channels_first(colour).copy()), Image.fromarray(colour), colour.copy())
    assert len({read(source).sha256 for source in alike}) == 1
    grey = noise(4, 6)
    unlike = (
        grey,
        grey.T,
        grey.reshape(6, 4),
        divided(grey, 255)[0],
        grey[::-1],
        read(png(grey, colour=0)).pixels + 1,
    )
    assert len({read(source).sha256 for source in unlike}) == len(unlike)


def test_pil_images() -> None:
    # What only the file says is lost when Pillow hands over its pixels.
    lost = ("sbit", "clear grey 4", "clear 16 bit colour", "16 bit", "pgm", "ppm of", "jpeg 2000", "bits asked")
    for case in GOOD:
        if not case.name.startswith(lost):
            with Image.open(case.path) as image:
                picture = read(image, bits=case.bits)
                check(picture, case)
                image.load()


def test_pil_image_of_a_pgm_keeps_its_brightness() -> None:
    with Image.open(named("pgm 65535").path) as image:
        image.load()
        np.testing.assert_array_equal(read(image).pixels.numpy(), named("pgm 65535").pixels)


WHITE = {
    "CMYK": (0, 0, 0, 0),
    "YCbCr": (255, 128, 128),
    "HSV": (0, 0, 255),
    "LAB": (255, 128, 128),
    "F": 1,
    "I": 65535,
}


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_pillow(mode: str) -> None:
    channels = 1 if mode[0] in "1FIL" and mode != "LAB" else 3
    if mode == "PA":
        image = Image.new("P", (3, 2), "white").convert("PA")
    else:
        image = Image.new(mode, (3, 2), WHITE.get(mode, 65535 if mode.startswith("I;") else "white"))
    white = read(image)
    assert white.unit().shape == (channels, 2, 3)
    np.testing.assert_allclose(white.unit().numpy(), 1, atol=0.01)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        assert bool((read(Image.new(mode, (3, 2))).unit() == 1).all())
    elif mode not in ("CMYK", "YCbCr", "LAB"):
        assert float(read(Image.new(mode, (3, 2))).unit().max()) < 0.01


def test_a_mode_that_pillow_may_have_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(decode._OPAQUE, "HSV")
    with pytest.raises(PictureError, match="mode HSV, which cannot be converted"):
        read(Image.new("HSV", (3, 2)))


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_image(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reader, "decode_image", decode_image)
    with pytest.raises(PictureError, match=r"'rgba\.png' needs more memory"):
        read(named("rgba").path)


def test_bad_pil_images() -> None:
    with Image.open(named("jpg cut at 70 %").path) as image, pytest.raises(PictureError, match="cut short"):
        read(image)
    with Image.open(named("png just too large").path) as image, pytest.raises(PictureError, match="too large"):
        read(image)
    with pytest.raises(PictureError, match="no pixels"):
        read(Image.new("RGB", (0, 5)))


class Pipe(io.RawIOBase):
    """A stream that cannot be rewound."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self.file.readinto(buffer)


def test_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(9, 8, 3)
    np.testing.assert_array_equal(read(io.BufferedReader(Pipe(png(pixels)))).rgb8(), pixels)
    monkeypatch.setattr(reader, "MAX_STREAM_BYTES", 100)
    with pytest.raises(PictureError, match="more than 100 bytes"):
        read(io.BufferedReader(Pipe(png(pixels))))


def test_bad_file_objects(tmp_path: Path) -> None:
    closed = io.BytesIO(b"")
    closed.close()
    (tmp_path / "t.txt").write_text("text\n")
    with open(tmp_path / "t.txt") as text:
        for source in (closed, io.StringIO("text"), text, io.BytesIO(), Path, type("R", (), {"read": 1})()):
            with pytest.raises(PictureError):
                read_anything(source)
    for source in (None, 5, [noise(3, 3)], {"a": 1}, ("a.png",)):
        with pytest.raises(PictureError, match="pass a path"):
            read_anything(source)


class Server(BaseHTTPRequestHandler):
    """Answers by path, a thread for each request."""

    picture = png(noise(6, 7, 3))

    def do_GET(self) -> None:
        match self.path.split("?")[0]:
            case "/a%20b.png":
                self.answer(200, self.picture)
            case "/empty":
                self.answer(200, b"")
            case "/page.jpg":
                self.answer(200, b"<html><body>log in</body></html>")
            case "/moved":
                self.answer(302, b"", Location="/a%20b.png")
            case "/ftp" | "/file" | "/loop" as path:
                places = {"/ftp": "ftp://127.0.0.1:9/x", "/file": "file:///etc/passwd", "/loop": "/loop"}
                self.answer(302, b"", Location=places[path])
            case "/cut":
                self.send_response(200)
                self.send_header("Content-Length", "9999")
                self.end_headers()
                self.wfile.write(self.picture[:60])
            case "/slow":
                time.sleep(1.5)
            case "/shouting":
                self.send_response(404, "\x1b[31mred")
                self.end_headers()
            case "/endless":
                self.send_response(200)
                self.end_headers()
                self.pour()
            case _:
                self.answer(404, b"none")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def pour(self) -> None:
        try:
            while True:
                self.wfile.write(bytes(1000))
                time.sleep(0.01)
        except OSError:
            pass

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses(address: str) -> None:
    for path in ("/a%20b.png", "/moved", "/a%20b.png?size=9"):
        picture = read(address + path)
        np.testing.assert_array_equal(picture.rgb8(), noise(6, 7, 3))
        assert picture.sha256 == hashlib.sha256(Server.picture).hexdigest()
    assert read(address + "/a%20b.png?size=9").name == "a b.png"
    assert read(address + "/moved", name="mine").name == "mine"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/none", "404"),
        ("/empty", "empty"),
        ("/page.jpg", "web page"),
        ("/ftp", "cannot be fetched"),
        ("/file", "cannot be fetched"),
        ("/loop", "cannot be fetched"),
        ("/cut", "cut short"),
        ("/shouting", r"404: \?\[31mred"),
    ],
)
def test_bad_answers(address: str, path: str, words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        read(address + path)
    assert str(caught.value).isprintable()


def test_answers_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_SILENCE_SECONDS", 0.2)
    with pytest.raises(PictureError, match="cannot be fetched"):
        read(address + "/slow")
    monkeypatch.setattr(reader, "_FETCH_SECONDS", 0.1)
    with pytest.raises(PictureError, match="longer than"):
        read(address + "/endless")
    monkeypatch.setattr(reader, "MAX_STREAM_BYTES", 3000)
    monkeypatch.setattr(reader, "_FETCH_SECONDS", 60)
    with pytest.raises(PictureError, match="more than 3000 bytes"):
        read(address + "/endless")


@pytest.mark.parametrize("source", ["ftp://a/b.png", "file:///etc/passwd", "s3://bucket/a.png", "x-y+z://a"])
def test_other_schemes(source: str) -> None:
    with pytest.raises(PictureError, match="no http or https address"):
        read(source)


@pytest.mark.parametrize("source", ["HTTP://", "http://[::1/x", "https://\u2488/", "http://a b/", "http://a\n/"])
def test_bad_addresses(source: str) -> None:
    with pytest.raises(PictureError, match="cannot be fetched"):
        read(source)


def test_a_second_read_is_the_same() -> None:
    file = io.BytesIO(saved(noise(5, 5, 3), "TIFF", compression="tiff_lzw"))
    first, second = read(file), read(file)
    assert torch.equal(first.pixels, second.pixels)
    assert first.sha256 == second.sha256
