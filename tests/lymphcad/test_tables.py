import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lymphcad.errors import Reason, TableError
from lymphcad.tables import CohortRow, NodeRow, read_cohort, read_nodes

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda value: value == value.strip()
)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-6, max_value=1e6)
optional_frame = st.none() | st.integers(1, 999_999_999)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_csv(header, rows):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return out.getvalue()


def nodes(tmp_path, text):
    return read_nodes(write(tmp_path / "nodes.csv", text))


def cohort(tmp_path, text):
    return read_cohort(write(tmp_path / "cohort.csv", text))


@QUICK
@given(
    rows=st.lists(
        st.tuples(texts, finite, finite, texts, optional_frame, st.none() | positive, texts), min_size=1, max_size=5
    ),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_node_table_round_trip(tmp_path, rows, mark):
    text = as_csv(["image", "row", "col", "node", "frame", "spacing_mm", "remark"], rows)
    read = read_nodes(write(tmp_path / "nodes.csv", mark + text.encode()))
    assert [(r.image, r.row, r.col, r.node, r.frame, r.spacing_mm) for r in read] == [row[:6] for row in rows]
    assert all(r.refusal is None for r in read)


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            texts,
            finite,
            finite,
            texts,
            st.sampled_from([0, 1]),
            texts,
            texts,
            st.none() | positive,
            optional_frame,
            st.none() | positive,
        ),
        min_size=1,
        max_size=5,
    ),
    split=st.sampled_from([None, "train", "val", "test"]),
)
def test_cohort_round_trip(tmp_path, rows, split):
    header = [
        "image",
        "row",
        "col",
        "node",
        "label",
        "patient",
        "lesion",
        "diameter_mm",
        "frame",
        "spacing_mm",
        "split",
    ]
    rows = [(*row, split) for row in rows]
    read = read_cohort(write(tmp_path / "cohort.csv", as_csv(header, rows)))
    assert [tuple(getattr(r, name) for name in header) for r in read] == rows


@QUICK
@given(rows=st.lists(st.lists(st.text(max_size=6), min_size=1, max_size=9), min_size=1, max_size=6))
def test_no_row_is_ever_dropped(tmp_path, rows):
    rows = [[value.replace("\0", "") for value in row] for row in rows]
    text = as_csv(["image", "row", "col"], rows).encode("utf-8", "replace")
    assert len(read_nodes(write(tmp_path / "nodes.csv", text))) == len(rows)


def test_columns_in_any_order_and_defaults(tmp_path):
    assert nodes(tmp_path, "extra,col, row ,image\n9,2.5,1,a.dcm\n\n9,4,3,b.dcm\n") == [
        NodeRow(2, "a.dcm", 1.0, 2.5, "1"),
        NodeRow(4, "b.dcm", 3.0, 4.0, "2"),
    ]


def test_lines_are_counted_across_quoted_line_breaks(tmp_path):
    read = nodes(tmp_path, 'image,row,col,remark\r\na,1,2,"x\r\ny"\r\nb,1,2,\r\n')
    assert [row.line for row in read] == [2, 4]


@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf", "1e999", "twelve", "1_0", "1;5"])
def test_coordinate_that_is_no_finite_number(tmp_path, value):
    bad, good = nodes(tmp_path, f"image,row,col\nSECRET,{value},7\nb,1,2\n")
    assert (bad.row, bad.col) == (None, 7.0)
    assert bad.refusal.reason is Reason.NODE_NOT_A_NUMBER
    assert "SECRET" not in str(bad.refusal)
    assert good.refusal is None


@pytest.mark.parametrize(
    "row",
    [
        ",1,2,,",
        "a,1,2,0,",
        "a,1,2,1.5,",
        "a,1,2,-1,",
        "a,1,2,one,",
        "a,1,2,,0",
        "a,1,2,,-1",
        "a,1,2,,nan",
        "a,1,2,,x",
        "a,1,5,2,1,7",
        ",x,y,,",
    ],
)
def test_bad_row(tmp_path, row):
    (read,) = nodes(tmp_path, f"image,row,col,frame,spacing_mm\n{row}\n")
    assert read.refusal.reason is Reason.BAD_ROW


def test_too_few_and_blank_trailing_fields(tmp_path):
    short, trailing = nodes(tmp_path, "image,row,col\na,1\nb,1,2,,\n")
    assert short.refusal.reason is Reason.NODE_NOT_A_NUMBER
    assert trailing.refusal is None


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b"image,row,col\n", "no rows"),
        (b"image,row\na,1\n", "lacks the column col; found: image, row"),
        (b"image;row;col\na;1;2\n", "commas"),
        (b"image,row,col,row\na,1,2,3\n", "more than one column row"),
        ("image,row,col\nä,1,2\n".encode("latin-1"), "UTF-8"),
        (b"image,row,col\na\0,1,2\n", "NUL"),
        ("image,row,col\na,1,2\n".encode("utf-16"), "NUL"),
        (b'image,row,col\n"a,1,2\nb,1,2\n', "from line 2"),
        (b"image,row,col\n" + b"a" * 140_000 + b",1,2\n", "131072"),
    ],
)
@pytest.mark.parametrize("read", [read_nodes, read_cohort])
def test_table_that_cannot_be_used(tmp_path, read, contents, words):
    if read is read_cohort:
        contents = contents.replace(b"image,row,col", b"image,row,col,label,patient")
        words = words.replace("col; found: image, row", "columns")
        if b"image,row\n" in contents:
            words = "lacks the columns col, label, patient"
    with pytest.raises(TableError, match=words):
        read(write(tmp_path / "t.csv", contents))


def test_table_file_is_missing(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TableError, match="cannot be opened"):
            read_nodes(path)


def test_values_in_place_of_a_header_are_not_repeated(tmp_path):
    with pytest.raises(TableError) as error:
        nodes(tmp_path, "19700101-Doe.dcm,123,45\n")
    assert "Doe" not in str(error.value)
    assert "3 other" in str(error.value)


def test_cohort_defaults(tmp_path):
    text = "image,row,col,label,patient,split\na,1,2,1,P7,validation\nb,3,4,0,P8,test\n"
    assert cohort(tmp_path, text) == [
        CohortRow(2, "a", 1.0, 2.0, "1", 1, "P7", None, None, "val", None, None),
        CohortRow(3, "b", 3.0, 4.0, "2", 0, "P8", None, None, "test", None, None),
    ]
    assert [row.split for row in cohort(tmp_path, text.replace("validation", "").replace("test", ""))] == [None, None]


def split_table(*splits):
    rows = (f"a,1,2,1,{patient},{split}" for patient, split in splits)
    return "image,row,col,label,patient,split\n" + "\n".join(rows) + "\n"


def test_patient_in_two_parts_of_the_split(tmp_path):
    names = [("DOE", "train"), ("ROE", "test"), ("DOE", "train"), ("DOE", "val"), ("DOE", "test"), ("ROE", "test")]
    with pytest.raises(TableError, match=r"^1 patient stands .*\(rows 1 and 4\)") as error:
        cohort(tmp_path, split_table(*names))
    assert "DOE" not in str(error.value)
    many = [(f"DOE{number}", split) for number in range(30) for split in ("val", "test")]
    with pytest.raises(TableError, match="rows 39 and 40; and 10 more") as error:
        cohort(tmp_path, split_table(*many))
    assert "DOE" not in str(error.value)
    assert len(cohort(tmp_path, split_table(("DOE", "val"), ("ROE", "test"), ("DOE", "validation")))) == 3


def test_split_of_some_rows_only(tmp_path):
    with pytest.raises(TableError, match=r"^2 of 3 rows have no split \(rows 1, 3\)"):
        cohort(tmp_path, split_table(("A", ""), ("B", "test"), ("C", "")))
    with pytest.raises(TableError, match=r"and 5 more\)"):
        cohort(tmp_path, split_table(("A", "train"), *(("B", "") for _ in range(25))))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,1,2,2,P,,", "label"),
        ("a,1,2,,P,,", "label"),
        ("a,1,2,1,,,", "patient is empty"),
        ("a,x,2,1,P,,", "row is not"),
        ("a,1,nan,1,P,,", "col is not"),
        ("a,1,2,1,P,0,", "diameter_mm"),
        ("a,1,2,1,P,x,", "diameter_mm"),
        ("a,1,2,1,P,5,,0.4", "soft_label is not on the label's side"),
        ("a,1,2,0,P,5,,0.6", "soft_label is not on the label's side"),
        ("a,1,2,1,P,5,,1.5", "soft_label is not a number from 0 to 1"),
        ("a,1,2,1,P,,Train", "split"),
        (",1,2,1,P,,", "image"),
        ("a,1,2,1,P,,test,,9", "more fields"),
    ],
)
def test_cohort_problem(tmp_path, row, words):
    with pytest.raises(TableError, match=rf"row 2 \(line 3\).*{words}"):
        cohort(tmp_path, f"image,row,col,label,patient,diameter_mm,split,soft_label\na,1,2,1,P,5,test,0.5\n{row}\n")


def test_cohort_lists_the_first_20_problems(tmp_path):
    with pytest.raises(TableError) as error:
        cohort(tmp_path, "image,row,col,label,patient\n" + "a,1,2,9,SECRET\n" * 25)
    message = str(error.value)
    assert message.count("label is not") == 20
    assert "row 20 " in message
    assert "row 21 " not in message
    assert message.endswith("and 5 more")
    assert "SECRET" not in message
