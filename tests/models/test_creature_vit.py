"""The bundled transformer: its formula, its stems, and every method on it."""

from functools import cache
from importlib.resources import files

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from small_nets import drawn, pictures, relative, tiny_options
from whence import attribute, load_model
from whence.errors import ModelError, UnsupportedError
from whence.methods.lrp.named import NAMED
from whence.models.attention import find_readout
from whence.models.bundled.creature_net import creature_net
from whence.models.bundled.creature_vit import CreatureViT, Layer, creature_vit
from whence.models.classifier import Classifier
from whence.registry import METHODS

SIDE = 64
STEMS = {"cnn": 176_313, "own": 149_945}
ATTENTION = ["attention-rollout", "generic-attention", "legrad", "transformer-attribution"]
# It asks for a mean over all places in front of the head, which reads the class token here.
REFUSED = {"cam"}

MODEL = """
source = "whence:creature_vit"
options = { stem = "own" }
weights = "weights.safetensors"
"""


@cache
def net_of(stem: str) -> CreatureViT:
    return drawn(creature_vit(stem=stem), shape=(3, SIDE, SIDE)).eval()


@pytest.mark.parametrize(("stem", "parameters"), STEMS.items())
def test_the_parameters_the_map_and_the_logits(stem, parameters):
    net = creature_vit(stem=stem)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    x = torch.zeros(2, 3, SIDE, SIDE)
    assert net.stem(x).shape == (2, 48, 16, 16)
    assert net(x).shape == (2, 9)
    assert creature_vit(4, stem)(x).shape == (2, 4)


def test_the_stem_takes_the_weights_of_a_creature_net_by_name():
    state = load_file(files("whence.models.bundled") / "creatures" / "weights.safetensors")
    net, vit = creature_net().eval(), creature_vit().eval()
    net.load_state_dict(state)
    vit.stem.load_state_dict({name: state[name] for name in vit.stem.state_dict()})
    x = pictures(size=SIDE).float()
    assert torch.equal(vit.stem(x), net.stages[:2](net.stem(x)))


def test_the_forward_pass_written_out():
    net, x = net_of("own"), pictures(size=SIDE)
    feature_map, rows = net.stem(x), []
    for row in range(8):
        for column in range(8):
            patch = feature_map[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
            rows.append(patch @ net.patches.weight.flatten(1).T + net.patches.bias)
    tokens = torch.cat([net.cls_token.expand(2, -1, -1), torch.stack(rows, 1)], 1) + net.positions
    for layer in net.layers:
        tokens = written_out(layer, tokens)
    assert relative(net(x).detach(), net.head(net.norm(tokens[:, 0])).detach()) < 1e-10


def written_out(layer: Layer, x: Tensor) -> Tensor:
    """Run a layer with torch's own attention."""
    attention = nn.MultiheadAttention(64, 4, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": layer.attn.qkv.weight,
            "in_proj_bias": layer.attn.qkv.bias,
            "out_proj.weight": layer.attn.proj.weight,
            "out_proj.bias": layer.attn.proj.bias,
        }
    )
    normed = layer.norm1(x)
    x = x + attention(normed, normed, normed)[0]
    inner, gelu, outer = layer.mlp
    return x + outer(gelu(inner(layer.norm2(x))))


@pytest.mark.parametrize("stem", STEMS)
def test_what_the_attention_maps_mean(stem):
    net = net_of(stem)
    readout = find_readout(net, pictures(size=SIDE), net, "the net")
    assert (readout.tokens, readout.layout.prefix, readout.layout.grid) == (65, 1, (8, 8))
    assert readout.read.nonzero().tolist() == [[0]]
    assert readout.blocks == ("layers.0", "layers.1", "layers.2")


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_explains_it(method, stem):
    model, x = Classifier(net_of(stem)), pictures(1, size=SIDE)
    options = tiny_options(METHODS.facts(method))
    if method in REFUSED:
        with pytest.raises(UnsupportedError, match="use grad-cam"):
            attribute(model, x, method, **options)
        return
    answer = attribute(model, x, method, target=[3], **options)
    assert answer.values.isfinite().all()
    if METHODS.facts(method).needs == "attention" or method == "grad-cam":
        assert answer.values.shape == (1, 1, 8, 8)
    assert answer.values.ne(0).any() or method == "sag"


@pytest.mark.parametrize("method", ATTENTION)
def test_a_spot_that_moves_takes_its_share_along_where_positions_are_alike(method):
    net = drawn(creature_vit(stem="own"), shape=(3, SIDE, SIDE)).eval()
    with torch.no_grad():
        net.positions[:, 1:] = net.positions[:, 1:2]
    x = torch.zeros(1, 3, SIDE, SIDE).double()
    x[..., 16:24, 40:48] = pictures(1, size=8)
    moved = attribute(Classifier(net), x.roll((8, -16), (2, 3)), method, target=[3]).values
    values = attribute(Classifier(net), x, method, target=[3]).values
    inner = (slice(None), slice(None), slice(1, -2), slice(3, -1))
    assert relative(moved.roll((-1, 2), (2, 3))[inner], values[inner]) < 1e-8
    assert relative(moved, values) > 0.1


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("composite", ["auto", *NAMED])
def test_the_balance_of_relevance(composite, stem):
    answer = attribute(Classifier(net_of(stem)), pictures(size=SIDE), "lrp", target=[1, 5], composite=composite)
    balance = answer.balance
    amounts = [balance.start, balance.input, balance.bias, balance.constants, answer.values.abs().flatten(1).sum(1)]
    assert (balance.unaccounted.abs() <= 1e-10 * torch.stack(amounts).abs().amax(0)).all()
    assert not any("without a rule" in note for notes in answer.notes for note in notes)


def test_a_model_file_names_it_and_its_stem(tmp_path):
    net, x = creature_vit(stem="own").eval(), pictures(size=SIDE).float()
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "model.toml").write_text(MODEL)
    assert torch.equal(load_model(tmp_path).module(x), net(x))


def test_an_unknown_stem_is_refused():
    with pytest.raises(ModelError, match="no stem 'cnm', did you mean 'cnn'"):
        creature_vit(stem="cnm")
