"""The search for a wrong reason: a plate is found, an object is not called one."""

import json

import pytest
import torch
from torch import nn

from debugging_toys import CORNERS, SIDE, found, noise, plated, spotted
from whence.asking import MethodRequest
from whence.errors import OptionError
from whence.interpretable.labelled import Inputs
from whence.models.classifier import Classifier
from whence.reports.debugging_results import SUSPICIOUS, Check
from whence.studies.debugging import explained, report, search, write
from whence.studies.debugging.explained import Explained
from whence.studies.debugging.suspicion import alike, check, probabilities


def test_plates_in_corners_are_suspicious():
    classifier, pictures = plated()
    made = search(classifier, pictures)
    assert made.clusters.count == 2
    assert made.suspicious.all()
    for number in range(2):
        rows = made.clusters.rows(number)
        assert len({int(row) // 2 % 2 for row in rows}) == 1
        one = made.cluster(number)
        assert (one.pictures, one.accuracy) == (40, 1.0)
        assert dict(one.said) == {"dark": 20, "bright": 20}
        assert one.inside == pytest.approx(1.0)
        # Without its plate every bright one is taken for dark.
        assert one.check.changed == 0.5
        assert one.check.alike > 0.8


def test_regions_cover_the_plates_and_little_more():
    classifier, pictures = plated()
    regions = search(classifier, pictures).regions(pictures)
    for number, (top, left, bottom, right) in enumerate(regions.tolist()):
        rows, columns = CORNERS[number // 2 % 2]
        assert top <= rows.start
        assert bottom >= rows.stop
        assert left <= columns.start
        assert right >= columns.stop
        assert (bottom - top) * (right - left) <= 11 * 11


@pytest.mark.parametrize("clusters", [None, 2, 5])
def test_a_spot_that_moves_is_not(clusters):
    classifier, pictures = spotted()
    made = search(classifier, pictures, clusters=clusters)
    assert not made.suspicious.any()
    assert not made.regions(pictures).any()
    assert made.boxes.any(1).all()


def test_plates_that_the_model_does_not_read_are_not():
    _, pictures = plated()
    model = Classifier(
        lambda x: x[:, 0, 12:20, 12:20].mean((1, 2), keepdim=True)[:, :, 0] * torch.tensor([[0.0, 1.0]])
    )
    said = probabilities(model, pictures.data.inputs).argmax(1)
    blind = Explained(pictures.data, pictures.relevance, said, pictures.names)
    made = search(model, blind)
    assert [(one.changed, one.lost) for one in made.checks] == [(0, 0), (0, 0)]
    assert not made.suspicious.any()


def test_the_most_suspicious_comes_first():
    classifier, with_plates = plated()
    x, labels = (
        torch.cat([with_plates.data.inputs, noise(60, 5)]),
        torch.cat([with_plates.data.labels, torch.zeros(60).long()]),
    )
    maps = torch.zeros(140, SIDE, SIDE)
    for number in range(80):
        rows, columns = CORNERS[number // 2 % 2]
        maps[number, rows, columns] = 1
    maps[80:, 12:20, 12:20] = 1
    classifier, pictures = found(x, labels, maps, classifier.module)
    made = search(classifier, pictures)
    assert made.suspicious.tolist() == [True, True, False]
    assert made.clusters.rows(2).tolist() == list(range(80, 140))
    scores = [one.score for one in made.checks]
    assert scores == sorted(scores, reverse=True)
    assert made.regions(pictures).any(1).tolist() == [True] * 80 + [False] * 60


def test_other_pictures_get_regions_of_their_own():
    classifier, pictures = plated()
    made = search(classifier, pictures)
    _, others = plated(10, seed=7)
    assert torch.equal(made.regions(others), made.regions(pictures)[:10])


def test_the_same_seed_gives_the_same_checks():
    classifier, pictures = spotted()
    assert search(classifier, pictures, seed=4).checks == search(classifier, pictures, seed=4).checks


def test_a_check_counts_changes_here_and_elsewhere():
    classifier, pictures = plated(8)
    rows = torch.tensor([0, 1, 4, 5])
    here = torch.tensor([[0, 0, 9, 9]]).expand(4, 4)
    one = check(classifier, pictures, rows, here, generator())
    assert (one.pictures, one.changed, one.lost) == (4, 0.5, 0.5)
    everywhere = torch.tensor([[0, 0, SIDE, SIDE]]).expand(4, 4)
    same = check(classifier, pictures, rows, everywhere, torch.Generator().manual_seed(0))
    assert same.lost == same.elsewhere
    assert same.cause == same.score == 0


def test_alike_is_one_minus_the_variance_inside_to_that_of_all():
    generator = torch.Generator().manual_seed(0)
    views, said = torch.rand(7, 2, 6, 6, generator=generator), torch.tensor([0, 0, 0, 1, 1, 2, 1])
    views[:, :, :2, :3] *= 0.1
    heat = torch.rand(6, 6, generator=generator) * (torch.arange(6)[:, None] < 2)
    inside = total = 0.0
    for i in range(6):
        for j in range(6):
            variance = 0.0
            for channel in range(2):
                for label in range(3):
                    own = views[said == label, channel, i, j]
                    variance += float((own - own.mean()).square().sum()) / 2 / 4
            total += variance / 36
            inside += float(heat[i, j]) / float(heat.sum()) * variance
    assert alike(views, said, heat) == pytest.approx(1 - inside / total, rel=1e-4)


def test_pictures_that_differ_nowhere_or_share_no_class_tell_nothing():
    heat = torch.ones(4, 4)
    assert alike(torch.ones(5, 1, 8, 8), torch.zeros(5).long(), heat) == 0
    assert alike(torch.rand(5, 1, 8, 8), torch.arange(5), heat) == 0


def test_the_score_is_cause_times_alike():
    one = Check(10, changed=0.5, lost=0.7, elsewhere=0.2, alike=0.4)
    assert one.score == pytest.approx(0.2)
    assert one.suspicious
    assert not Check(10, 0.9, 0.3, 0.2, 0.9).suspicious
    assert Check(10, 0.1, 0.1, 0.9, 1.0).score == 0
    assert Check(10, 0.0, SUSPICIOUS, 0.0, 1.0).suspicious


def test_what_is_explained_is_what_the_model_says():
    classifier, pictures = plated(70)
    made = explained(classifier, pictures.data, MethodRequest.read("gradient"))
    assert torch.equal(made.said, pictures.said)
    assert made.relevance.shape == (70, 16, 16)
    assert made.names[3] == "picture 3"
    x = pictures.data.inputs[64:65].clone().requires_grad_()
    (slope,) = torch.autograd.grad(classifier.module(x)[0, pictures.said[64]], x)
    if slope.any():
        wanted = slope[0, 0].abs().reshape(16, 2, 16, 2).mean((1, 3))
        assert torch.allclose(made.relevance[64], wanted / wanted.sum(), atol=1e-6)


def test_what_does_not_belong_together_is_refused():
    _, pictures = plated(8)
    with pytest.raises(OptionError, match="8 pictures with 8 maps, 8 answers and 7 names"):
        Explained(pictures.data, pictures.relevance, pictures.said, pictures.names[:7])


def test_no_picture_is_refused():
    empty = Inputs(torch.zeros(0, 1, 8, 8), torch.zeros(0).long(), ("a", "b"))
    with pytest.raises(OptionError, match="there is no picture to explain"):
        explained(plated(4)[0], empty, MethodRequest.read("gradient"))


def test_the_accuracy_is_that_of_pictures_whose_class_is_known():
    classifier, pictures = plated()
    labels = pictures.data.labels.clone()
    labels[:40], labels[40:44] = -1, 1 - labels[40:44]
    data = Inputs(pictures.data.inputs, labels, pictures.data.classes)
    made = search(classifier, Explained(data, pictures.relevance, pictures.said, pictures.names), clusters=1)
    assert made.cluster(0).accuracy == pytest.approx(36 / 40)
    unknown = Inputs(pictures.data.inputs, torch.full((80,), -1), pictures.data.classes)
    made = search(classifier, Explained(unknown, pictures.relevance, pictures.said, pictures.names), clusters=1)
    assert made.cluster(0).accuracy is None


def test_the_page_and_its_figures_are_written(tmp_path):
    classifier, pictures = plated()
    pictures.relevance[3] = 0
    made = report(classifier, search(classifier, pictures), "planted", facts={"Pictures": "toys"})
    (tmp_path / "other.txt").write_text("kept")
    page = write(made, tmp_path)
    assert page == tmp_path / "debug.html"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["debug.html", "debug.json", "other.txt"]
    told = json.loads((tmp_path / "debug.json").read_text())
    assert (told["pictures"], told["clustered"], told["without_map"]) == (80, 79, 1)
    assert [one["suspicious"] for one in told["clusters"]] == [True, True]
    members = [member for one in told["clusters"] for member in one["members"]]
    assert {one["picture"] for one in members} == {f"{n}.png" for n in range(80) if n != 3}
    assert len(members[0]["region"]) == 4
    assert all(len(look.shots) == 12 for look in made.looks)
    # The nearest of each class in turn.
    assert [shot.said for shot in made.looks[0].shots[:4]] in (["dark", "bright"] * 2, ["bright", "dark"] * 2)


class Sure(nn.Module):
    """Says class 0 of everything, and is sure of it where the corner is bright."""

    def forward(self, x):
        return torch.stack([9 * x[:, 0, :8, :8].mean((1, 2)) + 0.1, torch.zeros(len(x))], 1)


def test_a_class_that_keeps_less_than_half_of_its_probability_is_lost():
    # Of nine classes, so that without evidence each has a ninth.
    module = nn.Sequential(Sure(), nn.ConstantPad1d((0, 7), 0.0))
    x = torch.zeros(6, 1, SIDE, SIDE)
    x[:4, :, :8, :8] = 1
    _, pictures = found(x, torch.zeros(6).long(), torch.ones(6, SIDE, SIDE), module)
    one = check(Classifier(module), pictures, torch.arange(6), torch.tensor([[0, 0, 8, 8]]).expand(6, 4), generator())
    assert (one.changed, one.lost) == (0, pytest.approx(4 / 6))


def test_a_single_logit_has_two_probabilities():
    model = Classifier(lambda x: x[:, 0, 0, :1], activation="sigmoid")
    x = torch.tensor([-1.0, 2.0])[:, None, None, None].expand(2, 1, 4, 4)
    yes = torch.tensor([-1.0, 2.0]).sigmoid()
    assert torch.allclose(probabilities(model, x), torch.stack([1 - yes, yes], 1))


def generator():
    return torch.Generator().manual_seed(0)
