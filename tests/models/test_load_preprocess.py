"""Stated preprocessing: the same numbers as the library's own callable, or else that callable."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from whence.models.load import load_model
from whence.models.sources.processors import readings
from whence.models.stated import stated_or_own
from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read

TOLERANCE = 2.01 / 255


@pytest.fixture(scope="module")
def photo():
    """A wide colour picture of soft blobs, as no test card is."""
    noise = np.random.default_rng(0).integers(0, 256, (360, 540, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))


def off(ours, theirs, photo):
    pixels = ours.pixels.to_pixels
    return float((pixels(ours(read(photo)).input) - pixels(theirs)).abs().max())


@pytest.mark.parametrize(
    "name", ["resnet50", "convnext_tiny", "vit_b_16", "swin_t", "efficientnet_b1", "inception_v3"]
)
def test_torchvision(name, photo):
    models = importlib.import_module("torchvision.models")
    transform = models.get_model_weights(name).DEFAULT.transforms()
    source = importlib.import_module("whence.models.sources.torchvision")
    ours = stated_or_own(source._readings(transform), transform)
    assert isinstance(ours, Preprocess)
    assert off(ours, transform(photo), photo) <= TOLERANCE


@pytest.mark.parametrize("name", ["mobilenetv2_100", "convnext_atto", "vit_tiny_patch16_224", "mobilevit_xxs"])
def test_timm(name, photo):
    data = importlib.import_module("timm.data")
    config = data.resolve_data_config(
        pretrained_cfg=importlib.import_module("timm").get_pretrained_cfg(name).to_dict()
    )
    transform = data.create_transform(**config)
    ours = stated_or_own(importlib.import_module("whence.models.sources.timm")._readings(config), transform)
    assert isinstance(ours, Preprocess)
    assert off(ours, transform(photo), photo) <= TOLERANCE


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("ViTImageProcessor", {}),
        ("ViTImageProcessor", {"size": {"height": 96, "width": 128}, "resample": 3}),
        ("ViTImageProcessor", {"do_normalize": False}),
        ("ViTImageProcessor", {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 2}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "resample": 2}),
        (
            "BitImageProcessor",
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
        ),
    ],
)
def test_transformers(processor, settings, photo):
    theirs = getattr(importlib.import_module("transformers"), processor)(**settings)
    ours = stated_or_own(readings(theirs.to_dict()), theirs)
    assert isinstance(ours, Preprocess)
    assert off(ours, theirs(images=photo, return_tensors="pt")["pixel_values"][0], photo) <= TOLERANCE


@pytest.mark.parametrize("size", [(361, 543), (257, 301), (300, 301), (333, 256), (259, 999)])
@pytest.mark.parametrize("crop", [224, 223])
def test_transformers_centre_crop_of_odd_sizes(size, crop):
    """Where half a pixel is left over, torchvision takes the even row and transformers the one before."""
    theirs = importlib.import_module("transformers").BitImageProcessor(
        size={"shortest_edge": 257}, crop_size={"height": crop, "width": crop}, do_center_crop=True
    )
    ours = stated_or_own(readings(theirs.to_dict()), theirs)
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))
    assert isinstance(ours, Preprocess)
    assert off(ours, theirs(images=photo, return_tensors="pt")["pixel_values"][0], photo) <= TOLERANCE


@pytest.mark.parametrize("size", [(91, 120), (223, 225), (100, 301)])
def test_transformers_centre_crop_of_pictures_that_are_smaller(size):
    """They are padded with black, the odd row behind; without a resize the numbers are the picture's own."""
    theirs = importlib.import_module("transformers").BitImageProcessor(
        do_resize=False, crop_size={"height": 224, "width": 224}, do_center_crop=True
    )
    ours = stated_or_own(readings(theirs.to_dict()), theirs)
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    assert isinstance(ours, Preprocess)
    assert off(ours, theirs(images=photo, return_tensors="pt")["pixel_values"][0], photo) <= 1e-5


def test_a_processor_in_a_folder_is_used(tmp_path):
    options = {"num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 2, "image_size": 32}
    labels = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}, "num_labels": 2}
    load_model("hf:vit", weights="random", **options, **labels).module.save_pretrained(tmp_path)
    without = load_model(f"hf:{tmp_path}")
    assert (without.preprocess, without.labels) == (None, ("cat", "dog"))
    processor = importlib.import_module("transformers").ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    assert load_model(f"hf:{tmp_path}").preprocess == Preprocess(
        resize=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


def test_what_states_something_else_is_called_itself(photo):
    def flipped(picture):
        pixels = torch.from_numpy(np.array(picture.resize((64, 64)))).permute(2, 0, 1) / 255
        return pixels.flip(2)

    ours = stated_or_own([Preprocess(resize=(64, 64))], flipped)
    assert isinstance(ours, ForeignPreprocess)
    assert torch.equal(ours(read(photo)).input, flipped(photo))


def test_another_size_is_another_preprocessing():
    own = importlib.import_module("torchvision.transforms").ToTensor()
    assert isinstance(stated_or_own([Preprocess(resize=(64, 64))], own), ForeignPreprocess)


def test_a_processor_that_turns_colours_round_is_called_itself():
    theirs = importlib.import_module("transformers").MobileViTImageProcessor()
    assert isinstance(stated_or_own(readings(theirs.to_dict()), theirs), ForeignPreprocess)
