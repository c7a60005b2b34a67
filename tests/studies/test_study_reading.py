"""What is read back from a study's folder: order, maps, the digest, and what is damaged or absent."""

import sys
from dataclasses import replace

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from study_samples import CELLS, FAILED, METRIC, drawn, job, rewritten, row, study
from whence.errors import MissingExtraError, OptionError, OutputError, PictureError, UnknownNameError
from whence.studies import parts, rows
from whence.studies.digest import Digest
from whence.studies.study import open as opened

NAMES = [f"{i:03d}.png" for i in range(5)]
DIGEST = "fc31541768517a45ae75f9d024099c8e76f6197242eccc27dbac9a37ee1fc316"


@pytest.fixture
def made(tmp_path):
    return study(tmp_path / "out", job(tmp_path, NAMES))


def test_rows_come_in_the_order_of_the_job_whatever_was_written_first(made):
    found = opened(made.folder).table()
    assert found["number"].to_pylist() == [n for n in range(5) for _ in CELLS]
    assert found["method"].to_pylist() == [cell.method for cell in CELLS] * 5
    assert found["model"].to_pylist() == ["a", "a", "b"] * 5
    assert METRIC in found.column_names
    assert not [name for name in found.column_names if name.startswith("map_")]


def test_rows_are_chosen_by_what_stands_in_them(made):
    found = made.table(columns=["number", METRIC], where={"model": "a", "method": "grad-cam", "status": "ok"})
    assert found.column_names == ["number", METRIC]
    assert found["number"].to_pylist() == [n for n in range(5) if n != FAILED]
    assert len(made.table(where={"residual": None})) == 10
    assert len(made.table(where={"correct": True, "model": "b"})) == 3
    empty = made.table(where={"status": "worker died"})
    assert len(empty) == 0
    assert empty.schema == made.table().schema


def test_tables_hold_maps_where_they_are_asked_for(made):
    found = made.table(columns=["number"], maps=True)
    assert found.column_names == ["number", "map_1x2x2", "map_3x8x8"]
    assert found["map_1x2x2"].null_count == 11
    only = made.table(columns=["number"], maps=True, where={"method": "grad-cam", "status": "ok"})
    assert only["map_3x8x8"].null_count == len(only) == 4


def test_every_map_is_the_one_that_was_written(made):
    for place, cell in enumerate(CELLS):
        name = made.job.models[cell.model].name
        pieces = list(made.maps(name, cell.method))
        numbers = [n for rows_, _ in pieces for n in rows_["number"].to_pylist()]
        assert numbers == [n for n in range(5) if (n, place) != (FAILED, 0)]
        maps = torch.cat([values for _, values in pieces])
        for number, values in zip(numbers, maps, strict=True):
            expected = torch.tensor(row(made.job, number, place)["map_"])
            assert torch.equal(values, expected)
            assert torch.equal(made.map(number, name, cell.method), expected)
            assert torch.equal(made.map(NAMES[number], name, cell.method), expected)


def test_a_map_is_found_in_whichever_group_of_rows_it_stands(made):
    path = parts.path(made.folder, 1)
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    for number in (2, 3):
        expected = torch.tensor(row(made.job, number, 1)["map_"])
        assert torch.equal(made.map(number, "a", "gradient"), expected)
        assert made.row(number, "b", "gradient")["number"] == number


def test_half_precision_maps_come_as_float32(tmp_path):
    half = study(tmp_path / "out", job(tmp_path, NAMES, maps="float16"))
    assert half.map(1, "b").dtype == torch.float32
    assert torch.equal(half.map(1, "b"), torch.tensor(row(half.job, 1, 2)["map_"]).float())


def test_a_model_with_one_method_needs_no_name_of_it(made):
    assert torch.equal(made.map(1, "b"), made.map(1, "b", "gradient"))
    assert torch.equal(made.map(1, method="grad-cam"), made.map(1, "a", "grad-cam"))


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ((0,), OptionError, r"0 has 3 maps: name the model and the method of one \(a by grad-cam, a by gradient"),
        ((0, None, "gradient"), OptionError, "a by gradient, b by gradient"),
        (("0001.png",), UnknownNameError, "did you mean '001.png'"),
        ((5,), UnknownNameError, "there are 0 to 4"),
        ((-1,), UnknownNameError, "there are 0 to 4"),
        ((0, "c"), UnknownNameError, "no model 'c': there are: a, b"),
        ((0, "a", "grad-cm"), UnknownNameError, "did you mean 'grad-cam'"),
        ((0, "b", "grad-cam"), OptionError, "grad-cam was not asked of b"),
        ((FAILED, "a", "grad-cam"), OutputError, "'002.png' has no map: '002.png' is empty"),
    ],
)
def test_a_map_that_is_not_there_is_refused_with_what_is(made, asked, error, said):
    with pytest.raises(error, match=said):
        made.map(*asked)


def test_unknown_columns_and_values_are_refused(made):
    with pytest.raises(OptionError, match="did you mean 'predicted'"):
        made.table(columns=["predictd"])
    with pytest.raises(OptionError, match="did you mean 'number'"):
        next(made.batches(columns=["nmber"]))
    with pytest.raises(OptionError, match="number = 'x' is asked for, and it holds int32"):
        made.table(where={"number": "x"})
    with pytest.raises(UnknownNameError, match="no model 'c'"):
        made.table(where={"model": "c"})
    with pytest.raises(UnknownNameError, match="no method 'cam'"):
        next(made.maps("a", "cam"))


def test_a_study_without_maps_says_so(tmp_path):
    none = study(tmp_path / "out", job(tmp_path, NAMES, maps="none"))
    with pytest.raises(OptionError, match="kept no maps"):
        none.map(0, "b")
    with pytest.raises(OptionError, match="kept no maps"):
        next(none.maps("a", "gradient"))


def test_failures_are_told_by_their_reason(made):
    assert made.failed["number"].to_pylist() == [FAILED]
    assert made.failures() == {"the picture is empty: get the file again": ["002.png"]}
    assert made.summary() == {
        "folder": str(made.folder), "fingerprint": made.job.fingerprint, "pictures": 5, "models": ["a", "b"],
        "methods": ["grad-cam", "gradient"], "rows": 15, "failed": 1, "missing": 0, "seconds": 19.5,
    }  # fmt: skip


def test_an_unfinished_study_is_read_as_far_as_it_is(made):
    parts.path(made.folder, 1).unlink()
    assert made.missing == [1]
    assert not made.complete
    assert made.table()["number"].to_pylist() == [n for n in (0, 1, 4) for _ in CELLS]
    assert repr(made) == f"Study('{made.folder}': 5 pictures x 3 maps of 2 models, 1 of 3 shards missing)"
    with pytest.raises(OutputError, match=r"1 of 3 shards are missing.* finish the study"):
        made.digest()
    with pytest.raises(OutputError, match=r"'003.png' is not explained yet"):
        made.map(3, "b")
    for shard in (0, 2):
        parts.path(made.folder, shard).unlink()
    assert len(made.table()) == 0
    assert list(made.maps("a", "gradient")) == []
    assert made.summary()["seconds"] == 0


def test_damaged_and_strange_parts_are_named(made, tmp_path):
    path = parts.path(made.folder, 1)
    whole = path.read_bytes()
    for broken in (whole[:100], whole[:-50], b"", whole[:200] + bytes(60) + whole[260:]):
        path.write_bytes(broken)
        with pytest.raises(OutputError, match=r"000001.parquet is damaged .* run the study again"):
            made.table(maps=True)
    path.write_bytes(whole)
    rewritten(made, 1, lambda table: table.slice(1))
    with pytest.raises(OutputError, match=r"000001.parquet is damaged \(5 of 6 rows"):
        made.table()
    path.write_bytes(whole)
    rewritten(made, 1, lambda table: table.drop_columns(["score"]))
    with pytest.raises(OutputError, match=r"000001.parquet is damaged .*1 columns missing"):
        made.digest()
    other = study(tmp_path / "other", job(tmp_path, NAMES, seed=1))
    path.write_bytes(parts.path(other.folder, 1).read_bytes())
    with pytest.raises(OutputError, match=r"000001.parquet is of another study"):
        made.table()


def test_folders_that_hold_no_study_are_refused(tmp_path):
    with pytest.raises(OutputError, match="holds no study"):
        opened(tmp_path)
    with pytest.raises(OutputError, match="holds no study"):
        opened(tmp_path / "nowhere")


def test_the_digest_does_not_ask_how_rows_stand_in_files(made, monkeypatch):
    first = made.digest()
    monkeypatch.setattr(rows, "_ROWS", 1)
    monkeypatch.setattr(rows, "_ROWS_WITH_MAPS", 2)
    assert made.digest() == first
    path = parts.path(made.folder, 0)
    pq.write_table(
        pq.read_table(path), path, row_group_size=1, compression="none", use_dictionary=False, version="1.0"
    )
    assert made.digest() == first


def test_a_column_of_nulls_is_one_that_is_absent(made):
    first = made.digest()
    kind = pa.fixed_shape_tensor(pa.float32(), (9, 9))
    rewritten(made, 2, lambda table: table.append_column("map_9x9", pa.nulls(len(table), kind)))
    assert made.digest() == first


def _with(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, values(table[name]))


@pytest.mark.parametrize("name", ["picture", "error", "seconds", "host"])
def test_the_digest_leaves_out_what_differs_between_machines(made, name):
    first = made.digest()
    rewritten(made, 0, _with(name, lambda column: pa.nulls(len(column), column.type)))
    assert made.digest() == first


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("score", lambda c: pc.add(c, 1e-12)),
        ("number", lambda c: pc.add(c, 1).cast(pa.int32())),
        ("residual", lambda c: pc.fill_null(c, 0.0)),
        ("correct", lambda c: pc.invert(c)),
        ("predicted_label", lambda c: pc.utf8_upper(c)),
        ("notes", lambda c: pa.array([["to", "ld"], *c.to_pylist()[1:]], c.type)),
        ("notes", lambda c: pa.array([None, *c.to_pylist()[1:]], c.type)),
        ("graph", lambda c: pa.array([""] * len(c))),
        ("map_1x2x2", lambda c: pa.nulls(len(c), c.type)),
        ("map_1x2x2", lambda c: pa.chunked_array([c.chunks[0].slice(3), c.chunks[0].slice(0, 3)])),
    ],
)
def test_the_digest_changes_with_every_value(made, name, values):
    first = made.digest()
    rewritten(made, 0, _with(name, values))
    assert made.digest() != first


def test_the_digest_tells_in_which_order_the_same_values_stand(tmp_path):
    one = study(tmp_path / "one", job(tmp_path, NAMES))

    def swapped(job, number, place):
        other = {0: 1, 1: 0}.get(number, number)
        return {**row(job, number, place), "score": float(other)}

    other = study(tmp_path / "other", job(tmp_path, NAMES), swapped)
    assert one.digest() != other.digest()


def test_the_digest_is_that_of_any_cut_into_shards(tmp_path):
    digests = {
        study(tmp_path / str(shard), job(tmp_path, NAMES, shard=shard)).digest() for shard in (1, 2, 3, 5, 100)
    }
    assert len(digests) == 1


def test_the_digest_stays_what_it_is():
    """A change here makes every digest that anyone noted down worthless."""
    values = np.arange(8, dtype=np.float32)
    held = pa.FixedSizeListArray.from_arrays(pa.array(values), 4)
    digest = Digest()
    digest.add(
        pa.record_batch(
            {
                "number": pa.array([0, None], pa.int32()),
                "score": pa.array([0.5, None]),
                "correct": pa.array([True, False]),
                "picture": pa.array(["a", "é"]),
                "notes": pa.array([["one", ""], []], pa.list_(pa.string())),
                "graph": pa.array([None, None], pa.string()),
                "map_1x2x2": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (1, 2, 2)), held),
            }
        )
    )
    assert digest.hex() == DIGEST


def test_all_nan_are_one(tmp_path):
    strange = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\x7f", "<f8")[0]

    def with_nan(value):
        return lambda job, number, place: {**row(job, number, place), METRIC: value}

    digests = [study(tmp_path / str(i), job(tmp_path, NAMES), with_nan(v)).digest() for i, v in
               enumerate([np.nan, strange, None])]  # fmt: skip
    assert digests[0] == digests[1] != digests[2]


def test_pandas_and_duckdb_read_the_same(made):
    frame = made.pandas(where={"status": "ok"})
    assert isinstance(frame, pandas.DataFrame)
    means = frame.groupby(["model", "method"])[METRIC].mean()
    found = duckdb.sql(
        f"""SELECT model, method, avg("{METRIC}") FROM '{made.folder}/parts/*.parquet'
        WHERE status = 'ok' GROUP BY ALL"""
    ).fetchall()
    assert {(model, method): pytest.approx(value) for model, method, value in found} == dict(means)
    held = duckdb.sql(
        f"SELECT map_3x8x8 FROM read_parquet('{made.folder}/parts/*.parquet', union_by_name = true) "
        "WHERE number = 1 AND model = 'b'"
    ).fetchall()
    assert np.array_equal(np.reshape(held[0][0], (3, 8, 8)), made.map(1, "b").numpy())


def test_without_pandas_it_says_what_to_install(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        made.pandas()


def test_pictures_are_read_again_and_those_that_changed_are_refused(tmp_path):
    names = drawn(tmp_path / "in", 3)
    made = study(tmp_path / "out", job(tmp_path / "in", names))
    assert made.picture(1).name == "001.png"
    (tmp_path / "in" / "001.png").write_bytes((tmp_path / "in" / "000.png").read_bytes())
    with pytest.raises(PictureError, match=r"'001.png' is another picture than when the study began"):
        made.picture(1)
    (tmp_path / "in" / "002.png").unlink()
    with pytest.raises(PictureError):
        made.picture(2)
    with pytest.raises(UnknownNameError):
        made.picture(3)


def test_a_notebook_shows_a_few_facts_with_all_names_escaped(tmp_path):
    made = study(tmp_path / "out", job(tmp_path, NAMES))
    hostile = replace(made.job.models[0], name="<script>alert(1)</script>")
    shown = replace(made, job=replace(made.job, models=(hostile, made.job.models[1])))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "complete" in shown
    assert len(shown) < 2000


def test_many_rows_are_gone_through_few_at_a_time(made, monkeypatch):
    monkeypatch.setattr(rows, "_ROWS_WITH_MAPS", 2)
    sizes = [len(table) for table in made.batches(columns=["number"], maps=True)]
    assert max(sizes) == 2
    assert sum(sizes) == 15
