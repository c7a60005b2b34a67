"""Rows as tables: types, nulls, maps of several shapes, and the way through a Parquet file."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine_samples import bare
from whence.studies.tables import MAP, columns, map_column, map_of, table

JOB = replace(bare(4), metrics=("deletion:grid=4", "sparseness"))


def values(seed, shape=(1, 3, 2), kind="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def through(made, path):
    pq.write_table(made, path / "t.parquet", compression="zstd")
    return pq.read_table(path / "t.parquet")


def test_the_columns_stand_in_the_order_of_the_plan():
    names = list(columns(JOB))
    assert names[:3] == ["number", "picture", "sha256"]
    assert names[names.index("residual") + 1 : names.index("forward")] == ["deletion:grid=4", "sparseness"]
    assert table(JOB, []).column_names == names
    assert table(JOB, [{MAP: values(0)}]).column_names == [*names, "map_1x3x2"]


def test_what_is_absent_is_null_and_every_value_has_its_type():
    made = table(JOB, [{"number": 3, "notes": ["a", "b"], "correct": True, "sparseness": 0.5}, {"status": "ok"}])
    first, second = made.to_pylist()
    assert first == {
        **dict.fromkeys(columns(JOB)), "number": 3, "notes": ["a", "b"], "correct": True, "sparseness": 0.5
    }  # fmt: skip
    assert second == {**dict.fromkeys(columns(JOB)), "status": "ok"}
    assert dict(zip(made.schema.names, made.schema.types, strict=True)) == columns(JOB)


def test_the_footer_names_the_job(tmp_path):
    made = table(JOB, [{"number": 0}])
    assert made.schema.metadata == {b"whence.job": JOB.fingerprint.encode()}
    assert through(made, tmp_path).schema.metadata[b"whence.job"] == JOB.fingerprint.encode()


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_maps_of_several_shapes_stand_in_a_column_each(tmp_path, kind):
    shapes = [(1, 3, 2), None, (3, 4, 4), (1, 3, 2), (1, 1, 1), None]
    maps = [None if shape is None else values(i, shape, kind) for i, shape in enumerate(shapes)]
    rows = table(JOB, [{MAP: one} for one in maps])
    for made in (rows, through(rows, tmp_path)):
        for shape in {shape for shape in shapes if shape}:
            column = made[map_column(shape)].combine_chunks()
            own = [i for i, one in enumerate(shapes) if one == shape]
            assert isinstance(column.type, pa.FixedShapeTensorType)
            assert tuple(column.type.shape) == shape
            assert column.type.value_type == pa.from_numpy_dtype(np.dtype(kind))
            assert [i for i, valid in enumerate(column.is_valid().to_pylist()) if valid] == own
            found = map_of(column.drop_null())
            assert found.dtype == np.dtype(kind)
            assert np.array_equal(found, np.stack([maps[i] for i in own]))


def test_a_slice_of_a_column_has_its_own_maps(tmp_path):
    maps = [values(i) for i in range(5)]
    column = through(table(JOB, [{MAP: one} for one in maps]), tmp_path)["map_1x3x2"].combine_chunks()
    assert np.array_equal(map_of(column[2:4]), np.stack(maps[2:4]))


def test_rows_without_a_map_make_no_column_of_maps():
    assert not [name for name in table(JOB, [{"status": "PictureError"}] * 3).column_names if name.startswith(MAP)]


def test_a_text_that_no_encoding_can_say_is_kept_as_well_as_it_can_be(tmp_path):
    made = table(JOB, [{"picture": "caf\udce9.png", "error": "'caf\udce9.png' is empty", "truth": "é"}])
    (row,) = through(made, tmp_path).to_pylist()
    assert (row["picture"], row["error"], row["truth"]) == ("caf?.png", "'caf?.png' is empty", "é")


def test_not_a_number_stays_what_it_is(tmp_path):
    made = through(table(JOB, [{"score": float("nan")}, {"score": float("-inf")}, {}]), tmp_path)
    assert str(made["score"].to_pylist()) == "[nan, -inf, None]"
