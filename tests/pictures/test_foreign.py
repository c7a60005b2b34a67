"""Any callable as preprocessing: its geometry is found, or said not to be."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from whence.errors import PictureError
from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
PICTURE = read(PIXELS)
NORMALISED = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def squash(picture):
    """A user's own function, from a PIL image."""
    return torch.from_numpy(np.asarray(picture.resize((64, 64)))).permute(2, 0, 1) / 255


def letterboxed(picture):
    scale = 64 / max(picture.size)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (64, 64), (114, 114, 114))
    canvas.paste(small, ((64 - small.width) // 2, (64 - small.height) // 2))
    return transforms.functional.to_tensor(canvas)


@pytest.mark.parametrize(
    ("function", "box"),
    [
        (
            transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64), transforms.ToTensor(), NORMALISED]),
            (6.67, 46.67, 113.33, 153.33),
        ),
        (
            v2.Compose(
                [v2.ToImage(), v2.Resize((64, 64)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
            ),
            (0, 0, 120, 200),
        ),
        (squash, (0, 0, 120, 200)),
        (letterboxed, (-40, 0, 160, 200)),
        (lambda picture: transforms.functional.to_tensor(picture).flip(2), (0, 200, 120, 0)),
        (lambda picture: transforms.functional.to_tensor(picture.convert("L")), (0, 0, 120, 200)),
    ],
    ids=["resize and crop", "v2 squash", "own function", "letterbox", "mirrored", "grey"],
)
def test_geometry_is_found(function, box):
    prepared = ForeignPreprocess(function)(PICTURE)
    assert prepared.notes == ()
    assert np.allclose(prepared.geometry.box, box, atol=2.5)


def test_stated_and_found_geometry_agree():
    stated = Preprocess(resize=72, crop=64)
    found = ForeignPreprocess(lambda picture: stated(read(picture)).input)
    assert np.allclose(found(PICTURE).geometry.box, stated(PICTURE).geometry.box, atol=1)


@pytest.mark.parametrize(
    "function",
    [
        lambda picture: transforms.functional.to_tensor(picture.rotate(30)),
        lambda picture: transforms.functional.to_tensor(picture.transpose(Image.Transpose.ROTATE_90)),
        transforms.Compose([transforms.RandomCrop(32), transforms.ToTensor()]),
        lambda picture: (t := transforms.functional.to_tensor(picture)) - t.mean(),
    ],
    ids=["rotated", "turned", "random", "standardised by itself"],
)
def test_where_no_geometry_can_be_found_a_note_says_so(function):
    prepared = ForeignPreprocess(function)(PICTURE)
    assert prepared.geometry is None
    assert "input grid" in prepared.notes[0]


def in_colours(preprocess):
    note = preprocess(PICTURE).notes[0]
    assert ("colours at random" in note) != ("pixels at random" in note)
    assert "input grid" in note
    return "colours at random" in note


@pytest.mark.parametrize(
    ("transform", "colours"),
    [
        (transforms.ColorJitter(0.4, 0.4, 0.4, 0.1), True),
        (transforms.ColorJitter(brightness=0.3), True),
        (transforms.ColorJitter(contrast=0.9), True),
        (transforms.RandomAdjustSharpness(3, p=0.5), True),
        (transforms.RandomCrop(32), False),
        (transforms.RandomCrop((120, 90)), False),
        (transforms.RandomCrop((100, 200)), False),
        (transforms.RandomResizedCrop((120, 200), scale=(0.5, 0.9)), False),
        (transforms.RandomHorizontalFlip(), False),
        (transforms.RandomVerticalFlip(), False),
        (transforms.RandomRotation(10), False),
        (transforms.Compose([transforms.ColorJitter(0.3), transforms.RandomCrop(60)]), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_done_at_random_is_said(transform, colours):
    """Also where all crops have one size, or move along one axis alone."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        preprocess = ForeignPreprocess(transforms.Compose([transform, transforms.ToTensor()]))
        assert in_colours(preprocess) == colours
        assert preprocess(PICTURE).geometry is None
        assert preprocess.pixels is None


def test_a_crop_that_is_random_only_in_larger_pictures_is_noticed():
    """The first picture is as large as the crop, so that nothing can move in it."""
    preprocess = ForeignPreprocess(transforms.Compose([transforms.RandomCrop((120, 200)), transforms.ToTensor()]))
    assert preprocess(PICTURE).geometry is not None
    larger = read(np.zeros((1200, 2000, 3), np.uint8))
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        assert "pixels at random" in preprocess(larger).notes[0]


def test_looking_for_chance_leaves_the_users_draws_alone():
    draws = []
    preprocess = ForeignPreprocess(
        lambda picture: draws.append(float(torch.rand(()))) or transforms.functional.to_tensor(picture)
    )
    with torch.random.fork_rng():
        torch.random.manual_seed(3)
        expected = torch.rand(2).tolist()
        torch.random.manual_seed(3)
        preprocess(PICTURE)
        assert draws[0] == pytest.approx(expected[0])
        assert float(torch.rand(())) == pytest.approx(expected[1])


def test_black_and_white_are_found():
    preprocess = ForeignPreprocess(transforms.Compose([transforms.ToTensor(), NORMALISED]))
    assert torch.allclose(
        preprocess.pixels.low, -torch.tensor([0.485, 0.456, 0.406]) / torch.tensor([0.229, 0.224, 0.225])
    )
    assert preprocess.shape == (3, 256, 256)


def test_albumentations_and_dictionaries_are_called_as_they_are():
    class Compose:
        def __call__(self, image):
            return {"image": image.astype(np.float32) / 255}

    Compose.__module__ = "albumentations.core.composition"
    prepared = ForeignPreprocess(Compose())(PICTURE)
    assert prepared.input.shape == (3, 120, 200)
    assert np.allclose(prepared.geometry.box, (0, 0, 120, 200), atol=2)


def test_a_transformers_processor_is_called_as_it_is():
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    prepared = ForeignPreprocess(processor)(PICTURE)
    assert prepared.input.shape == (3, 32, 32)
    assert np.allclose(prepared.geometry.box, (0, 0, 120, 200), atol=5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda picture: picture,
        lambda picture: torch.zeros(3),
        lambda picture: torch.zeros(3, 4, 4, dtype=torch.uint8),
    ],
)
def test_what_is_no_tensor_is_refused(wrong):
    with pytest.raises(PictureError, match="the preprocessing returned"):
        ForeignPreprocess(wrong)(PICTURE)
