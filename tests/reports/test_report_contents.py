import copy

import pytest

from report_samples import failed, picture, sample
from whence.errors import OutputError
from whence.reports import contents as rows
from whence.reports.contents import checked, schema


@pytest.fixture
def result():
    return sample(rows=[picture(0), failed()]).result


def test_a_result_fits(result):
    assert checked(result) is result


def test_a_result_fits_the_published_schema(result):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(result, schema(), cls=jsonschema.Draft202012Validator)
    del result["pictures"][0]["top"][0]["label"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result, schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (None, rows.Result),
        ("model", rows.ModelRow),
        ("picture", rows.PictureRow),
        ("geometry", rows.GeometryRow),
        ("class", rows.ClassRow),
        ("target", rows.TargetRow),
        ("passes", rows.PassesRow),
        ("evidence", rows.EvidenceRow),
        ("explanation", rows.ExplanationRow),
        ("left_out", rows.LeftOutRow),
        ("channel", rows.ChannelRow),
        ("balance", rows.BalanceRow),
        ("layer", rows.LayerRow),
        ("curve", rows.CurveRow),
    ],
)
def test_the_schema_and_the_types_have_the_same_keys(name, row):
    part = schema() if name is None else schema()["$defs"][name]
    assert set(part["required"]) == row.__required_keys__
    assert set(part["properties"]) == row.__required_keys__ | row.__optional_keys__


def _without(value, *path):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return value


def _with(value, new, *path):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(
    "path", [("model",), ("pictures", 0, "top", 1, "label"), ("pictures", 0, "explanations", 0, "passes", "forward")]
)
def test_what_is_missing_is_named(result, path):
    with pytest.raises(OutputError, match=rf"{path[-1]} is missing"):
        checked(_without(result, *path))


@pytest.mark.parametrize(
    ("new", "path"),
    [
        ("7", ("seed",)),
        (True, ("seed",)),
        (float("nan"), ("pictures", 0, "top", 0, "probability")),
        (float("inf"), ("pictures", 0, "explanations", 0, "residual")),
        ("both", ("pictures", 0, "explanations", 0, "show")),
        (None, ("pictures", 0, "explanations", 0, "target")),
        ("text", ("pictures",)),
        (3, ("pictures", 0, "decoded", 0)),
    ],
)
def test_what_is_of_the_wrong_type_is_named(result, new, path):
    with pytest.raises(OutputError, match=str(path[-1])):
        checked(_with(result, new, *path))


@pytest.mark.parametrize("value", [None, [], {}, {"schema": 2}])
def test_another_schema_is_refused(value):
    with pytest.raises(OutputError, match="schema"):
        checked(value)
