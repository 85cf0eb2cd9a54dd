"""The trail on disk: chained, rotated, shared by processes, and mended where one was ended while it wrote."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from lymphcad_client.audit.head import head_of, rotated
from lymphcad_client.audit.key import AuditKey
from lymphcad_client.audit.lines import line_digest, seal
from lymphcad_client.audit.trail import Trail, key_of
from lymphcad_client.audit.verify import parts_of, verify

from lymphcad.errors import CommandError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "trail.jsonl"


def write(path, *names, **options):
    trail = Trail(path, **options)
    for name in names:
        trail.append([{"status": name}])
    trail.close()


def lines(path):
    return b"".join(part.read_bytes() for part in parts_of(path)).splitlines(keepends=True)


def statuses(path):
    return [json.loads(line)["status"] for line in lines(path)]


def test_lines_are_numbered_and_each_has_the_digest_of_the_one_before(path):
    write(path, "a", "b")
    write(path, "c")  # opened again
    values = [json.loads(line) for line in lines(path)]
    assert [value["seq"] for value in values] == [1, 2, 3]
    assert [value["previous"] for value in values] == ["0" * 64, *(line_digest(line) for line in lines(path)[:2])]
    verdict = verify(path)
    assert (verdict.lines, verdict.parts, verdict.problems, verdict.notes) == (3, 1, [], [])
    assert verdict.head == line_digest(lines(path)[-1])
    assert verdict.keyed
    assert verdict.statuses == {"a": 1, "b": 1, "c": 1}


def test_key_and_trail_are_this_users_alone(path):
    write(path, "a")
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 4  # trail, head, key, lock


def test_a_full_file_is_put_aside_and_the_next_goes_on(path):
    write(path, *"abcdefgh", size=500)  # two lines fit
    assert [part.name for part in parts_of(path)] == [f"trail.jsonl.{n:06d}" for n in (1, 2, 3)] + ["trail.jsonl"]
    assert all(part.stat().st_size <= 500 for part in parts_of(path))
    assert statuses(path) == list("abcdefgh")
    verdict = verify(path)
    assert (verdict.parts, verdict.lines, verdict.problems, verdict.notes) == (4, 8, [], [])


@pytest.mark.parametrize("kept", [0, 1, 30, 150])
def test_a_line_that_was_broken_off_is_kept_and_said(path, kept):
    write(path, "a", "b")
    with path.open("ab") as file:
        file.write(lines(path)[1][:kept])
    unfinished = verify(path)
    assert unfinished.holds
    assert [f"{kept} bytes of an unfinished line" in note for note in unfinished.notes] == [True] * bool(kept)
    write(path, "c")
    assert statuses(path) == (["a", "b", "mended", "c"] if kept else ["a", "b", "c"])
    verdict = verify(path)
    assert verdict.holds
    assert len(verdict.notes) == bool(kept)
    if kept:
        mended = json.loads(lines(path)[2])
        assert mended["torn_bytes"] == kept
        assert mended["torn"] == lines(path)[1][:kept].decode()


def test_what_others_wrote_at_the_end_is_found_and_then_kept_as_mended(path):
    write(path, "a", "b")
    with path.open("ab") as file:
        file.write(lines(path)[1] + b"x" * 10_000 + b"\xff\n")
    assert not verify(path).holds
    write(path, "c")
    assert statuses(path) == ["a", "b", "mended", "c"]
    assert json.loads(lines(path)[2])["torn_bytes"] > 10_000
    assert verify(path).holds


def test_a_line_that_was_forged_at_the_end_is_not_taken_for_ours(path, tmp_path):
    write(path, "a", "b")
    forger = AuditKey.make(tmp_path / "forger")
    with path.open("ab") as file:
        file.write(seal({"status": "forged"}, 3, line_digest(lines(path)[-1]), forger))
    write(path, "c")
    assert statuses(path) == ["a", "b", "mended", "c"]
    assert "forged" in json.loads(lines(path)[2])["torn"]


def test_a_line_that_the_head_does_not_know_yet_is_counted_if_it_is_ours(path):
    write(path, "a")
    before = head_of(path).read_bytes()
    write(path, "b", "c")
    head_of(path).write_bytes(before)  # as of a process that was killed after its line
    assert verify(path).notes == ["the head lacks the last 2 lines: the process that wrote them was ended"]
    write(path, "d")
    assert statuses(path) == list("abcd")
    assert (verify(path).problems, verify(path).notes) == ([], [])


def test_a_file_that_was_just_put_aside_is_counted(path):
    write(path, "a", "b")
    path.rename(rotated(path, 1))  # killed here
    write(path, "c", "d")
    assert statuses(path) == list("abcd")
    assert verify(path).holds
    assert verify(path).parts == 2


def test_a_trail_that_was_begun_and_no_more(path):
    write(path)
    head_of(path).write_bytes(b"")  # killed as it was made
    write(path, "a")
    assert verify(path).holds


def _cut(path):
    path.write_bytes(b"".join(lines(path)[:-1]))


def _remove_head(path):
    head_of(path).unlink()


def _remove_key(path):
    key_of(path).unlink()


def _other_key(path):
    key_of(path).write_text("0" * 64)


def _no_key(path):
    key_of(path).write_text("secret")


def _change_head(path):
    head = head_of(path)
    head.write_bytes(head.read_bytes().replace(b'"count": 3', b'"count": 2'))


def _change_last(path):
    path.write_bytes(path.read_bytes().replace(b'"status":"c"', b'"status":"d"'))


def _remove_trail(path):
    path.unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_cut, "shorter than its head says"),
        (_remove_trail, "shorter than its head says"),
        (_remove_head, "without the head of an audit trail"),
        (_remove_key, "key '.*' cannot be read"),
        (_other_key, "was not written with this key"),
        (_no_key, "is no key of an audit trail"),
        (_change_head, "was not written with this key"),
        (_change_last, "is not the one that was written"),
    ],
)
def test_a_trail_that_was_changed_at_its_end_is_not_gone_on_with(path, change, words):
    write(path, "a", "b", "c")
    change(path)
    with pytest.raises(CommandError, match=words):
        Trail(path)


def test_lines_that_are_cut_off_while_it_is_open_are_missed_at_the_next(path):
    write(path, "a", "b")
    trail = Trail(path)
    _cut(path)
    with pytest.raises(CommandError, match="shorter than its head says"):
        trail.append([{"status": "c"}])
    assert statuses(path) == ["a"]


def test_a_key_can_lie_elsewhere(path, tmp_path):
    write(path, "a", key=tmp_path / "the.key")
    assert not key_of(path).exists()
    assert not verify(path).keyed
    assert verify(path, key=tmp_path / "the.key").keyed
    assert verify(path, key=tmp_path / "the.key").holds


_APPENDS = """
import sys
from pathlib import Path
from lymphcad_client.audit.trail import Trail
trail = Trail(Path(sys.argv[1]), size=20_000)
for _ in range(100):
    trail.append([{"status": sys.argv[2]}])
trail.close()
"""


def test_several_processes_append_to_one_trail(path):
    processes = [subprocess.Popen([sys.executable, "-c", _APPENDS, path, name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    verdict = verify(path)
    assert (verdict.problems, verdict.notes, verdict.statuses) == ([], [], {"a": 100, "b": 100, "c": 100})
    assert verdict.parts > 2


def test_two_that_begin_a_trail_at_once_have_one_key(path):
    with ThreadPoolExecutor(8) as pool:
        trails = list(pool.map(lambda _: Trail(path), range(8)))
    assert len({trail.key.pseudonym("x") for trail in trails}) == 1


_KILLED = """
import sys
from pathlib import Path
from lymphcad_client.audit.trail import Trail
trail = Trail(Path(sys.argv[1]), size=20_000)
print("open", flush=True)
while True:
    trail.append([{"status": "a"}])
    print("line", flush=True)
"""


def test_killed_again_and_again_no_line_that_was_acknowledged_is_missing(path):
    acknowledged = 0
    for lines_before in (1, 40, 90):
        process = subprocess.Popen([sys.executable, "-c", _KILLED, path], stdout=subprocess.PIPE, text=True)
        with process:
            for _ in range(lines_before + 1):
                process.stdout.readline()
            process.kill()
            acknowledged += lines_before + process.stdout.read().count("line\n")
    write(path, "last")
    verdict = verify(path)
    assert verdict.problems == []
    assert verdict.statuses["a"] >= acknowledged


def test_a_disk_that_is_full_takes_nothing_and_hides_nothing(path):
    trail = Trail(path)
    trail.append([{"status": "a"}])
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
    try:
        with pytest.raises(CommandError, match="cannot be written to \\(File too large\\): make room"):
            trail.append([{"status": "b"}, {"status": "c"}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    trail.append([{"status": "d"}])
    assert statuses(path) == ["a", "d"]
    assert verify(path).holds


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="cannot be written to"):
        Trail(tmp_path / "file" / "trail.jsonl")


def test_a_file_that_is_no_trail_is_not_written_over(tmp_path):
    other = tmp_path / "letter.txt"
    other.write_text("Dear colleague")
    with pytest.raises(CommandError, match="without the head of an audit trail"):
        Trail(other)
    assert other.read_text() == "Dear colleague"
