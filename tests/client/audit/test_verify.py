"""Whatever is done to a trail is found, whoever does it, and a trail that nobody touched holds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lymphcad_client.audit.head import head_of, rotated
from lymphcad_client.audit.key import AuditKey
from lymphcad_client.audit.lines import line_digest, seal
from lymphcad_client.audit.trail import Trail, key_of
from lymphcad_client.audit.verify import parts_of, verify

LINES = st.lists(st.fixed_dictionaries({"status": st.text(max_size=6)}), min_size=1, max_size=9)


def write(path, records, size=700, at_once=1):
    trail = Trail(path, size=size)
    for start in range(0, len(records), at_once):
        trail.append(records[start : start + at_once])
    trail.close()


@pytest.fixture
def path(tmp_path):
    """Return a trail of ten lines in several files."""
    write(tmp_path / "trail.jsonl", [{"status": name} for name in "abcdefghij"])
    return tmp_path / "trail.jsonl"


def said(verdict):
    return [*verdict.problems, *(note for note in verdict.notes if "unfinished" in note)]


def _change_byte(draw, content):
    at = draw(st.integers(0, len(content) - 1))
    return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]


def _remove_bytes(draw, content):
    start = draw(st.integers(0, len(content) - 1))
    return content[:start] + content[draw(st.integers(start + 1, len(content))) :]


def _insert_bytes(draw, content):
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]


def _line(draw, lines):
    return draw(st.integers(0, len(lines) - 1))


def _remove_line(draw, content):
    lines = content.splitlines(keepends=True)
    del lines[_line(draw, lines)]
    return b"".join(lines)


def _repeat_line(draw, content):
    lines = content.splitlines(keepends=True)
    lines.insert(draw(st.integers(0, len(lines))), lines[_line(draw, lines)])
    return b"".join(lines)


def _swap_lines(draw, content):
    lines = content.splitlines(keepends=True)
    one, other = _line(draw, lines), _line(draw, lines)
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), records=LINES, keyed=st.booleans())
def test_any_single_edit_is_found(data, records, keyed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trail.jsonl"
        write(path, records, at_once=4)
        if not keyed:
            key_of(path).unlink()
        assert said(verify(path)) == []
        part = data.draw(st.sampled_from(parts_of(path)))
        edits = (_change_byte, _remove_bytes, _insert_bytes, _remove_line, _repeat_line, _swap_lines)
        before = part.read_bytes()
        after = data.draw(st.sampled_from(edits))(data.draw, before)
        part.write_bytes(after)
        assert bool(said(verify(path))) == (after != before)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("number", [1, 2, None])
def test_a_file_that_is_missing_is_found(path, number, keyed):
    if not keyed:
        key_of(path).unlink()
    (rotated(path, number) if number else path).unlink()
    assert not verify(path).holds


def test_older_files_that_were_moved_elsewhere(path, tmp_path_factory):
    last = rotated(path, 1).read_bytes().splitlines(keepends=True)[-1]
    rotated(path, 1).rename(tmp_path_factory.mktemp("elsewhere") / "old")
    (problem,) = verify(path).problems
    assert "files before it are missing" in problem
    assert verify(path, after=line_digest(last)).holds
    assert not verify(path, after=line_digest(b"another")).holds
    assert verify(path, after=line_digest(last), head=line_digest(last)).holds


def test_lines_that_were_cut_off_are_counted(path):
    path.write_bytes(b"")
    (problem,) = verify(path).problems
    count = 10 - b"".join(part.read_bytes() for part in parts_of(path)).count(b"\n")
    assert problem == f"{count} lines are missing at the end, of the 10 that the head says"
    assert count > 0


def test_a_trail_that_was_cut_with_its_head_is_found_by_the_digest_that_was_written_down(path, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.parent.glob("trail*"):
        shutil.copy(file, copy)
    write(path, [{"status": "k"}])
    written_down = verify(path).head
    write(path, [{"status": "l"}])
    assert verify(path, head=written_down).holds  # an older one is enough
    assert verify(copy / path.name).holds
    (problem,) = verify(copy / path.name, head=written_down).problems
    assert "cut or written anew" in problem


def test_a_trail_that_was_written_anew_with_another_key_is_found(path, tmp_path):
    other = tmp_path / "other" / "trail.jsonl"
    write(other, [{"status": name} for name in "abcdefghij"])
    verdict = verify(other, key=key_of(path))
    assert not verdict.holds
    assert len(verdict.problems) + verdict.further == 11  # each line, and the head
    key_of(other).unlink()
    assert verify(other).holds  # as the docs say: without the key it goes unseen
    assert not verify(other).keyed


@pytest.mark.parametrize("keyed", [True, False])
def test_a_line_that_was_forged_at_the_end_is_found(path, keyed, tmp_path):
    last = path.read_bytes().splitlines(keepends=True)[-1]
    forger = AuditKey.make(tmp_path / "forger")
    with path.open("ab") as file:
        file.write(seal({"status": "k"}, 11, line_digest(last), forger))
    if not keyed:
        key_of(path).unlink()
    (problem,) = verify(path).problems
    assert ("written without the key" if keyed else "which only the key tells from forged ones") in problem


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\x00" * 512])
def test_a_head_that_is_missing_or_damaged_is_found(path, content):
    head_of(path).unlink()
    if content is not None:
        head_of(path).write_bytes(content)
    assert len(verify(path).problems) == 1


def test_many_problems_are_counted(tmp_path):
    path = tmp_path / "trail.jsonl"
    write(path, [{"status": "a"}] * 30, size=100_000)
    path.write_bytes(path.read_bytes().replace(b'"status":"a"', b'"status":"b"'))
    verdict = verify(path)
    assert len(verdict.problems) == 20
    assert verdict.further == 30 + 29 + 1 - 20  # each line, each but the first after one that was changed, the head


def test_a_trail_that_grows_meanwhile_holds(path):
    trail = Trail(path)
    with path.open("rb"):
        trail.append([{"status": "k"}])
        assert verify(path).holds
