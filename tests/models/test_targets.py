"""Which number of the output a target names, and what is said of a target that names none."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from small_nets import SmallNet, drawn, pictures
from whence import attribute
from whence.errors import ModelError, TargetError
from whence.models.classifier import Classifier
from whence.models.outputs import logits_of
from whence.models.targets import Fixed, Scale, Targets, fixed, per_picture, score, scores
from whence.results import Score

LABELS = ("cat", "dog", "Dog", "tabby - tiger cat", "7", "cat")
LOGITS = torch.tensor([[0.5, 3.0, -1.0, 2.0, 0.0, 1.0], [4.0, 1.0, 2.5, -2.0, 3.0, 0.0]], dtype=torch.float64)
LABELLED = Scale("softmax", LABELS)
PLAIN = Scale("softmax", None)


def asked(target: Any, scale: Scale = LABELLED, logits: Tensor = LOGITS) -> Score:
    return score(logits, logits_of, target, scale)


def assert_class(found: Score, index: int) -> None:
    assert found.index.tolist() == [index, index]
    assert torch.equal(found.value, LOGITS[:, index])


# One class


@pytest.mark.parametrize("target", [None, "top"])
def test_the_top_class_is_each_pictures_own(target: str | None) -> None:
    found = asked(target)
    assert found.index.tolist() == [1, 0]
    assert found.value.tolist() == [3.0, 4.0]


def test_the_second_class_is_each_pictures_own() -> None:
    found = asked("second")
    assert found.index.tolist() == [3, 4]
    assert found.value.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (0, 0),
        (5, 5),
        ("3", 3),
        (" 2 ", 2),
        ("dog", 1),
        ("Dog", 2),
        ("label:dog", 1),
        ("label: dog", 1),
        ("tabby - tiger cat", 3),
        ("TABBY - tiger cat", 3),
        ("label:tabby - tiger cat", 3),
        ("label:7", 4),
    ],
)
def test_a_class_goes_by_its_number_or_its_label(target: int | str, index: int) -> None:
    assert_class(asked(target), index)


def test_digits_are_a_number_unless_they_are_called_a_label() -> None:
    with pytest.raises(TargetError, match="target 7 is out of range: the model has 6 classes, 0 to 5"):
        asked("7")


def test_words_with_a_meaning_are_labels_where_the_model_has_such_labels() -> None:
    scale = Scale("softmax", ("top", "second", "probability:a", "a", "b", "c"))
    assert_class(asked("top", scale), 0)
    assert_class(asked("second", scale), 1)
    assert_class(asked("probability:a", scale), 2)


@pytest.mark.parametrize("target", [-1, "-1", -6, 6, 100, "6"])
@pytest.mark.parametrize("scale", [LABELLED, PLAIN])
def test_a_number_out_of_range_is_refused_with_the_count_also_where_python_would_count_from_the_end(
    target: int | str, scale: Scale
) -> None:
    with pytest.raises(TargetError, match=f"target {target} is out of range: the model has 6 classes, 0 to 5"):
        asked(target, scale)


def test_an_unknown_label_is_refused_with_the_count_and_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"target 'dogg' is none of the 6 labels: did you mean 'dog' or 'Dog'"):
        asked("dogg")


def test_a_label_of_several_classes_is_refused_with_their_numbers() -> None:
    with pytest.raises(TargetError, match=r"'cat' is the label of classes \[0, 5\]: give the number"):
        asked("cat")


def test_a_label_that_fits_several_only_without_case_is_ambiguous() -> None:
    with pytest.raises(TargetError, match=r"'DOG' is the label of classes \[1, 2\]"):
        asked("DOG")


def test_a_label_where_the_model_has_none_asks_for_a_number() -> None:
    with pytest.raises(TargetError, match="no labels, give a number from 0 to 5"):
        asked("dog", PLAIN)


def test_there_is_no_second_class_of_one() -> None:
    with pytest.raises(TargetError, match="only one class"):
        asked("second", PLAIN, LOGITS[:, :1])


@pytest.mark.parametrize("target", [True, 1.0, (1, 2), b"dog", {"dog"}])
def test_what_is_no_target_is_refused_with_what_is_one(target: object) -> None:
    with pytest.raises(TargetError, match="is none of: a class number, a label"):
        per_picture([0, target], 2)


# Contrasts and probabilities


@pytest.mark.parametrize(
    ("target", "first", "second"),
    [
        ("1 - 0", 1, 0),
        ("dog - Dog", 1, 2),
        ("dog - 5", 1, 5),
        ("label:dog - label:7", 1, 4),
        ("tabby - tiger cat - dog", 3, 1),
        ("dog - tabby - tiger cat", 1, 3),
        ("dog - Tabby - Tiger Cat", 1, 3),
    ],
)
def test_a_contrast_is_the_difference_of_two_logits(target: str, first: int, second: int) -> None:
    found = asked(target)
    assert found.index.tolist() == [first, first]
    assert torch.equal(found.value, LOGITS[:, first] - LOGITS[:, second])


def test_top_and_second_work_in_a_contrast() -> None:
    found = asked("top - second")
    assert found.index.tolist() == [1, 0]
    assert found.value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("dog - wolf", "'wolf' is none of the 6 labels"),
        ("wolf - dog", "'wolf' is none"),
        ("dog - 9", "target 9 is out of range"),
        ("dog - cat", r"classes \[0, 5\]"),
    ],
)
def test_a_contrast_with_what_is_no_class_is_refused(target: str, match: str) -> None:
    with pytest.raises(TargetError, match=match):
        asked(target)


@pytest.mark.parametrize(("name", "index"), [("dog", [1, 1]), ("3", [3, 3]), ("top", [1, 0]), ("second", [3, 4])])
def test_probabilities_and_their_logarithms(name: str, index: list[int]) -> None:
    for scale, table in ((LABELLED, LOGITS.softmax(1)), (Scale("sigmoid", LABELS), LOGITS.sigmoid())):
        found, log = asked(f"probability:{name}", scale), asked(f"log-probability:{name}", scale)
        expected = table[torch.arange(2), torch.tensor(index)]
        assert found.index.tolist() == log.index.tolist() == index
        torch.testing.assert_close(found.value, expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(log.value, expected.log(), rtol=1e-12, atol=0)


def test_the_logarithm_of_a_tiny_probability_is_finite() -> None:
    logits = torch.tensor([[0.0, 800.0]], dtype=torch.float64)
    assert asked("log-probability:0", PLAIN, logits).value.tolist() == [-800.0]
    assert asked("log-probability:0", Scale("sigmoid", None), -logits.flip(1)).value.tolist() == [-800.0]


@pytest.mark.parametrize(
    ("name", "index"), [("dog", [1, 1]), (" 3", [3, 3]), ("label:7", [4, 4]), ("top", [1, 0]), ("second", [3, 4])]
)
def test_the_log_odds_are_those_of_the_class_s_probability(name: str, index: list[int]) -> None:
    for scale, table in ((LABELLED, LOGITS.softmax(1)), (Scale("sigmoid", LABELS), LOGITS.sigmoid())):
        found = asked(f"log-odds:{name}", scale)
        p = table[torch.arange(2), torch.tensor(index)]
        assert found.index.tolist() == index
        torch.testing.assert_close(found.value, (p / (1 - p)).log(), rtol=1e-12, atol=1e-12)


def test_the_log_odds_of_a_sigmoid_s_class_are_its_logit() -> None:
    assert torch.equal(asked("log-odds:3", Scale("sigmoid", LABELS)).value, LOGITS[:, 3])


def test_the_log_odds_of_certain_and_of_hopeless_classes_are_finite_with_their_derivatives() -> None:
    logits = torch.tensor([[900.0, -5.0, 3.0], [-800.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    found = asked("log-odds:0", PLAIN, logits)
    others = (logits[:, 1:] - logits[:, 1:].amax(1, keepdim=True)).exp().sum(1).log() + logits[:, 1:].amax(1)
    torch.testing.assert_close(found.value, logits[:, 0] - others, rtol=1e-14, atol=0)
    (g,) = torch.autograd.grad(found.value.sum(), logits)
    expected = torch.cat((torch.ones(2, 1, dtype=torch.float64), -logits[:, 1:].detach().softmax(1)), 1)
    torch.testing.assert_close(g, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("measure", ["probability", "log-probability", "log-odds"])
def test_a_probability_of_what_is_no_class_is_refused(measure: str) -> None:
    with pytest.raises(TargetError, match="'wolf' is none of the 6 labels"):
        asked(f"{measure}:wolf")


def test_the_second_class_in_a_measure_stays_the_same_class_however_the_picture_is_changed() -> None:
    settled = fixed(LOGITS, logits_of, ["log-odds:second", "log-odds:second"], LABELLED)
    assert settled == [Fixed("log-odds", (3,)), Fixed("log-odds", (4,))]
    found = scores(LOGITS.flip(1), logits_of, settled, LABELLED)
    expected = [
        asked("log-odds:3", logits=LOGITS.flip(1)).value[0],
        asked("log-odds:4", logits=LOGITS.flip(1)).value[1],
    ]
    assert torch.equal(found.value, torch.stack(expected))


# Callables


def test_a_callable_sees_the_models_own_output_and_has_no_class() -> None:
    found = score((LOGITS, LOGITS + 1), logits_of, lambda output: output[1].sum(1), LABELLED)
    assert found.index.tolist() == [-1, -1]
    assert torch.equal(found.value, (LOGITS + 1).sum(1))


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (lambda output: output, r"returned \[2, 6\]"),
        (lambda output: output.sum(), r"returned \[\]"),
        (lambda output: output.argmax(1), r"returned \[2\]"),
        (lambda output: 3.0, "returned float"),
        (lambda output: None, "returned NoneType"),
    ],
)
def test_a_callable_must_return_one_floating_number_a_picture(target: Any, match: str) -> None:
    with pytest.raises(TargetError, match=match):
        asked(target)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("others", [0, 1])
def test_a_callable_that_returns_too_few_or_too_many_numbers_is_refused(count: int, others: int) -> None:
    def target(output: Tensor) -> Tensor:
        return output.new_zeros(count)

    wanted = [target, 0] if others else [target, target]
    with pytest.raises(TargetError, match=f"returned {count} numbers for 2 pictures"):
        scores(LOGITS, logits_of, wanted, LABELLED)


# One a picture


def test_each_picture_may_have_its_own_kind_of_target() -> None:
    logits = LOGITS.repeat(3, 1)
    wanted = ["second", 3, "dog - Dog", lambda output: output.sum(1), "probability:dog", None]
    found = scores(logits, logits_of, wanted, LABELLED)
    assert found.index.tolist() == [3, 3, 1, -1, 1, 0]
    expected = [2.0, -2.0, 4.0, float(LOGITS[1].sum()), float(LOGITS[0].softmax(0)[1]), 4.0]
    assert found.value.tolist() == pytest.approx(expected, rel=1e-14)


def test_a_callable_need_not_be_hashable() -> None:
    class Sum:
        __hash__ = None

        def __call__(self, output: Tensor) -> Tensor:
            return output.sum(1)

    assert torch.equal(scores(LOGITS, logits_of, [Sum(), Sum()], LABELLED).value, LOGITS.sum(1))


@pytest.mark.parametrize(
    "target",
    [
        [1, 3],
        [np.int64(1), np.int32(3)],
        [torch.tensor(1), torch.tensor(3)],
        np.array([1, 3]),
        np.array([1, 3], dtype=np.uint8),
        torch.tensor([1, 3]),
        torch.tensor([1, 3], dtype=torch.int32),
    ],
    ids=["list", "list of numpy", "list of torch", "numpy", "numpy uint8", "torch", "torch int32"],
)
def test_numbers_for_each_picture_may_be_pythons_numpys_or_torchs(target: Targets) -> None:
    found = per_picture(target, 2)
    assert found == [1, 3]
    assert all(type(one) is int for one in found)


@pytest.mark.parametrize("target", [3, np.int64(3), np.array(3), torch.tensor(3)])
def test_one_number_for_all_pictures_may_be_pythons_numpys_or_torchs(target: Targets) -> None:
    assert per_picture(target, 2) == [3, 3]


@pytest.mark.parametrize("target", [[1], [1, 2, 3], [], torch.tensor([1, 2, 3])])
def test_a_list_of_another_length_than_the_batch_is_refused(target: Targets) -> None:
    with pytest.raises(TargetError, match=f"{len(target)} targets for 2 pictures"):
        per_picture(target, 2)


@pytest.mark.parametrize(
    "target", [torch.tensor([[1], [2]]), torch.tensor([1.0, 2.0]), [[1], [2]], np.array([True, False])]
)
def test_arrays_that_hold_no_class_numbers_are_refused(target: Targets) -> None:
    with pytest.raises(TargetError, match="is none of: a class number"):
        per_picture(target, 2)


# Through the front door


@pytest.mark.parametrize(
    "target", [np.int64(2), np.array([2, 2]), torch.tensor(2), torch.tensor([2, 2]), [np.int64(2), 2], 2, "2", "c"]
)
def test_attribute_takes_every_way_to_name_a_class(target: Any) -> None:
    model = Classifier(drawn(SmallNet()), labels=list("abcde"))
    answer = attribute(model, pictures(), "gradient", target=target)
    assert answer.target.dtype == torch.int64
    assert answer.target.tolist() == [2, 2]
    assert torch.equal(answer.score, model.module(pictures())[:, 2])


def test_a_contrast_is_reported_by_its_first_class() -> None:
    answer = attribute(Classifier(drawn(SmallNet())), pictures(), "gradient", target="4 - 1")
    assert answer.target.tolist() == [4, 4]


@pytest.mark.parametrize("labels", [["a"], list("abcdef")])
def test_labels_that_are_not_one_a_class_are_refused_with_both_counts(labels: list[str]) -> None:
    with pytest.raises(ModelError, match=f"has 5 classes and {len(labels)} labels"):
        attribute(Classifier(drawn(SmallNet()), labels=labels), pictures(), "gradient")
