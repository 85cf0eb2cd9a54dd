"""The one table format: a CSV file with one lymph node in each row, with a label where it is a training cohort.

A node table has the columns ``image,row,col`` and may have ``node,frame,spacing_mm``; a cohort has ``label,patient``
too and may have ``lesion,diameter_mm,split,soft_label``. Other columns are ignored. ``row`` and ``col`` are the
zero-based pixel coordinates of the node's centre, ``frame`` counts from 1. No message repeats a value of the table, for
it may name a patient.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.errors import Reason, Refusal, TableError
from lymphcad.memory_file import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lymphcad.memory_file import Source

NODE_COLUMNS = ("image", "row", "col")
"""What a node table must have."""
COHORT_COLUMNS = (*NODE_COLUMNS, "label", "patient")
"""What a cohort must have."""
MAX_TABLE_BYTES = 256 * 1024**2
_OPTIONAL = ("node", "frame", "spacing_mm", "lesion", "diameter_mm", "split", "soft_label")
_MAX_PROBLEMS = 20
_MAX_NAMES = 20
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]{0,31}")
_FRAME = re.compile(r"[0-9]{1,9}")
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class NodeRow:
    """One row of a node table: a node to score, or why it cannot be.

    Attributes
    ----------
    line
        Line of the file in which the row starts; the header stands in line 1.
    image
        Path of the image, or its SOP Instance UID.
    row, col
        The node's centre, zero-based pixels; None if it is not a finite number.
    node
        The node's name; the number of the row, from 1, if the table gives none.
    frame
        Number of the frame, from 1; None if the table gives none.
    spacing_mm
        Distance between the centres of neighbouring pixels, mm; None if the table gives none.
    refusal
        Why the row cannot be scored; None if it can.
    """

    line: int
    image: str
    row: float | None
    col: float | None
    node: str
    frame: int | None = None
    spacing_mm: float | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True)
class CohortRow:
    """One row of a cohort: a node with its label.

    Attributes
    ----------
    line, image, node, frame, spacing_mm
        As in `NodeRow`.
    row, col
        The node's centre, zero-based pixels, finite.
    label
        1 if the node is metastatic, 0 if it is benign.
    patient
        Whose node it is.
    lesion
        Which of the patient's lesions it is; None if the table gives none.
    diameter_mm
        The node's diameter, mm; None if the table gives none.
    split
        ``train``, ``val`` or ``test``, the same in all rows of a patient; None in all rows if the table gives none.
    soft_label
        How sure it is that the node is metastatic, 0 to 1, such as the share of readers who say so, on the label's side
        of 0.5: what training aims at in place of the label. None if the table gives none.
    """

    line: int
    image: str
    row: float
    col: float
    node: str
    label: int
    patient: str
    lesion: str | None
    diameter_mm: float | None
    split: str | None
    frame: int | None
    spacing_mm: float | None
    soft_label: float | None = None


@dataclass(frozen=True)
class _Record:
    """One row as text: its number from 1, its first line, the known columns' values, and whether it is too long."""

    number: int
    line: int
    fields: dict[str, str]
    too_long: bool


def read_nodes(source: Source) -> list[NodeRow]:
    """Read a node table; a row that cannot be used comes back with a refusal, none is left out.

    Parameters
    ----------
    source
        A CSV file, UTF-8 with or without a byte order mark.

    Returns
    -------
    list of NodeRow
        In the order of the file. Refusals have the code ``bad_row`` (blank image, more fields than columns, bad frame
        or spacing) or ``node_not_a_number``.

    Raises
    ------
    TableError
        If the file is missing or not UTF-8 text, a quote is left open, a column is missing or there are no rows.
    """
    return [_node_row(record) for record in _records(source, NODE_COLUMNS)]


def read_cohort(path: Path) -> list[CohortRow]:
    """Read a cohort; all of it must be right, for a row left out would change what is trained and measured.

    Parameters
    ----------
    path
        A CSV file, UTF-8 with or without a byte order mark.

    Returns
    -------
    list of CohortRow
        In the order of the file.

    Raises
    ------
    TableError
        As in `read_nodes`; one error for all rows with a problem: the first 20, and how many more there are; if a
        patient stands in more than one part of the split, or only some rows have a split.
    """
    rows: list[CohortRow] = []
    problems: list[str] = []
    bad_rows = 0
    for record in _records(path, COHORT_COLUMNS):
        row, found = _cohort_row(record)
        if row is not None:
            rows.append(row)
        else:
            bad_rows += 1
            if len(problems) < _MAX_PROBLEMS:
                problems.append(f"row {record.number} (line {record.line}): {', '.join(found)}")
    if problems:
        more = f"; and {bad_rows - len(problems)} more" if bad_rows > len(problems) else ""
        raise TableError(
            f"{bad_rows} {'row' if bad_rows == 1 else 'rows'} of the cohort cannot be used, correct the table: "
            f"{'; '.join(problems)}{more}"
        )
    _check_split(rows)
    return rows


def _check_split(rows: Sequence[CohortRow]) -> None:
    """Refuse a split that leaves rows out, or patients in two parts: every figure would be inflated."""
    without = [number for number, row in enumerate(rows, start=1) if row.split is None]
    if 0 < len(without) < len(rows):
        raise TableError(
            f"{len(without)} of {len(rows)} rows have no split ({_numbers(without)}), and all or none must have one:"
            " fill the column split, or remove it"
        )
    first: dict[str, int] = {}
    torn: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows, start=1):
        other = first.setdefault(row.patient, number)
        if rows[other - 1].split != row.split:
            torn.setdefault(row.patient, (other, number))
    if torn:
        pairs = [f"rows {one} and {other}" for one, other in list(torn.values())[:_MAX_PROBLEMS]]
        more = f"; and {len(torn) - len(pairs)} more" if len(torn) > len(pairs) else ""
        raise TableError(
            f"{len(torn)} {'patient stands' if len(torn) == 1 else 'patients stand'} in more than one part of the split"
            f" ({'; '.join(pairs)}{more}), which inflates every figure: give all rows of a patient the same split"
        )


def _numbers(rows: Sequence[int]) -> str:
    """Return the first numbers of rows."""
    more = f" and {len(rows) - _MAX_PROBLEMS} more" if len(rows) > _MAX_PROBLEMS else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {', '.join(map(str, rows[:_MAX_PROBLEMS]))}{more}"


def _node_row(record: _Record) -> NodeRow:
    fields = record.fields
    row, col = (None, None) if record.too_long else (_number(fields["row"]), _number(fields["col"]))
    frame, spacing_mm, problems = _common(record)
    refusal: Refusal | None = None
    if problems:
        refusal = Refusal(Reason.BAD_ROW, f"in row {record.number} of the table {', '.join(problems)}: correct the row")
    elif row is None or col is None:
        names = " and ".join(name for name, value in (("row", row), ("col", col)) if value is None)
        refusal = Refusal(
            Reason.NODE_NOT_A_NUMBER,
            f"in row {record.number} of the table {names} must be a finite number: give the pixel coordinates of the "
            "node's centre, with a decimal point",
        )
    return NodeRow(
        record.line, fields["image"], row, col, fields["node"] or str(record.number), frame, spacing_mm, refusal
    )


def _cohort_row(record: _Record) -> tuple[CohortRow | None, list[str]]:
    """Return the row, or None and what is wrong with it."""
    fields = record.fields
    frame, spacing_mm, problems = _common(record)
    if record.too_long:  # then its values may stand in the wrong columns
        return None, problems
    row, col = _number(fields["row"]), _number(fields["col"])
    problems += [f"{name} is not a finite number" for name, value in (("row", row), ("col", col)) if value is None]
    if fields["label"] not in ("0", "1"):
        problems.append("label is not 0 or 1")
    if not fields["patient"]:
        problems.append("patient is empty")
    diameter_mm = _number(fields["diameter_mm"])
    if fields["diameter_mm"] and (diameter_mm is None or diameter_mm <= 0):
        problems.append("diameter_mm is not a positive number")
    soft_label = _number(fields["soft_label"])
    if fields["soft_label"] and (soft_label is None or not 0 <= soft_label <= 1):
        problems.append("soft_label is not a number from 0 to 1")
    elif soft_label is not None and (soft_label - 0.5) * (1 if fields["label"] == "1" else -1) < 0:
        problems.append("soft_label is not on the label's side of 0.5")
    split = _SPLITS.get(fields["split"])
    if fields["split"] and split is None:
        problems.append("split is not train, val or test")
    if problems or row is None or col is None:
        return None, problems
    return CohortRow(
        line=record.line,
        image=fields["image"],
        row=row,
        col=col,
        node=fields["node"] or str(record.number),
        label=int(fields["label"]),
        patient=fields["patient"],
        lesion=fields["lesion"] or None,
        diameter_mm=diameter_mm,
        split=split,
        frame=frame,
        spacing_mm=spacing_mm,
        soft_label=soft_label,
    ), []


def _common(record: _Record) -> tuple[int | None, float | None, list[str]]:
    """Return frame, spacing in mm, and what is wrong with the row apart from the coordinates."""
    fields = record.fields
    if record.too_long:
        return None, None, ["there are more fields than columns (a comma in a value needs quotes around the value)"]
    problems: list[str] = []
    if not fields["image"]:
        problems.append("image is blank")
    frame = int(fields["frame"]) if _FRAME.fullmatch(fields["frame"]) else None
    if fields["frame"] and not frame:
        frame = None
        problems.append("frame is not a whole number from 1")
    spacing_mm = _number(fields["spacing_mm"])
    if fields["spacing_mm"] and (spacing_mm is None or spacing_mm <= 0):
        spacing_mm = None
        problems.append("spacing_mm is not a positive number")
    return frame, spacing_mm, problems


def _number(value: str) -> float | None:
    """Return a finite number, or None; Python's own spellings (1_000) are not numbers in a table."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in value else None


def _records(source: Source, required: Sequence[str]) -> list[_Record]:
    """Read all rows as text; lines with nothing in them are not rows."""
    text = _text(source)
    if not text.strip():
        raise TableError(f"the table is empty: its first line must name the columns {', '.join(required)}")
    # strict: an open quote would otherwise swallow the rows behind it
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[_Record] = []
    header: list[str] | None = None
    start = 1
    try:
        for values in reader:
            line, start = start, reader.line_num + 1
            if not values:
                continue
            if header is None:
                header = [name.strip() for name in values]
                _check_header(header, required)
                continue
            fields = dict.fromkeys((*required, *_OPTIONAL), "")
            fields.update((name, value.strip()) for name, value in zip(header, values, strict=False) if name in fields)
            too_long = any(value.strip() for value in values[len(header) :])
            records.append(_Record(len(records) + 1, line, fields, too_long))
    except csv.Error:
        raise TableError(
            f"the table cannot be read as CSV from line {start} on: look for a quote that is not closed, or a value of"
            " more than 131072 characters"
        ) from None
    if not records:
        raise TableError("the table has no rows below its header: add one row for each node")
    return records


def _text(source: Source) -> str:
    if isinstance(source, MemoryFile):
        contents = source.data
    else:
        try:
            with source.open("rb") as file:
                contents = file.read(MAX_TABLE_BYTES + 1)
        except (OSError, ValueError):  # ValueError: a NUL byte in the name
            raise TableError(
                "the table cannot be opened: check that the file is there, is not a folder and may be read"
            ) from None
    if len(contents) > MAX_TABLE_BYTES:
        raise TableError(f"the table has more than {MAX_TABLE_BYTES} bytes: split it into several files")
    if b"\0" in contents:
        raise TableError("the table has NUL bytes, so it is no UTF-8 text (a spreadsheet file?): save it as CSV UTF-8")
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TableError("the table is not UTF-8 text: save it as CSV UTF-8") from None


def _check_header(header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        # A file without a header has values here, so only what looks like a column's name is repeated.
        names = [name for name in header if _COLUMN_NAME.fullmatch(name)][:_MAX_NAMES]
        others = len(header) - len(names)
        found = ", ".join(names + ([f"{others} other"] if others else []))
        hint = "; separate the columns with commas" if len(header) == 1 and re.search("[;\t]", header[0]) else ""
        raise TableError(
            f"the table lacks the {'column' if len(missing) == 1 else 'columns'} {', '.join(missing)}; found: "
            f"{found}{hint}"
        )
    twice = [name for name in (*required, *_OPTIONAL) if header.count(name) > 1]
    if twice:
        raise TableError(f"the table has more than one column {', '.join(twice)}: keep one of each")
