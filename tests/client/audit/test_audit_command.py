"""`lymphcad audit`: what it says, and its exit codes."""

from __future__ import annotations

import json

import pytest
from lymphcad_client.audit import open_audit
from lymphcad_client.audit.trail import key_of

from lymphcad.cli import main


@pytest.fixture
def path(tmp_path, seen_of):
    """Return a trail of two people."""
    audit = open_audit(tmp_path / "trail.jsonl")
    for who in ("A. Reader", "B. Reader", "A. Reader"):
        audit.saw(seen_of(who=who))
    audit.close()
    return tmp_path / "trail.jsonl"


@pytest.fixture
def run(capsys):
    def do(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["audit", *(str(argument) for argument in arguments)])
        out, error = capsys.readouterr()
        return int(ended.value.code or 0), out, error

    return do


def test_a_trail_that_holds(run, path):
    for given in (path, path.parent):
        code, out, error = run("verify", given)
        assert (code, error) == (0, "")
        assert out.startswith("trail.jsonl: 3 lines in 1 files, as they were written.\n")
        assert "3 scored" in out
    digest = out.split()[-1]
    assert run("verify", path, "--head", digest)[0] == 0
    value = json.loads(run("verify", path, "--json")[1])
    assert value["holds"]
    assert value["head"] == digest


def test_a_trail_that_does_not_hold(run, path):
    path.write_bytes(path.read_bytes().replace(b"0.75", b"0.25", 1))
    code, out, error = run("verify", path)
    assert (code, error) == (4, "")
    assert "NOT as they were written" in out
    assert "Problem: line 1 of trail.jsonl was changed, or written without the key." in out
    assert run("verify", path, "--json")[0] == 4


def test_several_trails_in_a_folder(run, path, seen_of):
    other = path.with_name("other.jsonl")
    audit = open_audit(other)
    audit.saw(seen_of())
    audit.close()
    code, out, _ = run("verify", path.parent)
    assert code == 0
    assert out.count("as they were written") == 2
    other.unlink()
    assert run("verify", path.parent)[0] == 4
    code, _, error = run("verify", path.parent, "--head", "0" * 64)
    assert code == 2
    assert "belong to one trail" in error


def test_without_the_key_it_says_what_goes_unseen(run, path):
    key_of(path).unlink()
    code, out, _ = run("verify", path)
    assert code == 0
    assert "without the key, a trail that was written anew as a whole goes unseen" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "{}/none.jsonl"], "there is no audit trail at"),
        (["verify", "{}/empty"], "there is no audit trail at"),
        (["verify", "{}/trail.jsonl", "--key", "{}/none"], "cannot be read"),
        (["verify", "{}/trail.jsonl", "--key", "{}/trail.jsonl"], "is no key of an audit trail"),
        (["verify", "{}/trail.jsonl", "--head", "abc"], "--head is no digest"),
        (["verify", "{}/trail.jsonl", "--after", "abc"], "--after is no digest"),
        (["verify"], "Missing argument"),
        (["verfy"], "No such command"),
        (["who", "A. Reader", "{}/trail.jsonl", "--key", "{}/other.key"], "was not written with this key"),
    ],
)
def test_a_wrong_command_is_said_in_one_sentence(run, path, arguments, words):
    (path.parent / "empty").mkdir()
    (path.parent / "other.key").write_text("0" * 64)
    code, out, error = run(*(argument.format(path.parent) for argument in arguments))
    assert (code, out) == (2, "")
    assert words in error
    assert "Traceback" not in error


def test_a_persons_lines_are_found_by_who_has_the_key(run, path):
    code, out, error = run("who", "A. Reader", path)
    assert code == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 3]
    assert error == "trail.jsonl: 2 lines\n"
    assert run("who", "Nobody", path)[1:] == ("", "trail.jsonl: 0 lines\n")
    key_of(path).unlink()
    code, _, error = run("who", "A. Reader", path)
    assert code == 2
    assert "name it with --key" in error


def test_help_lists_its_commands(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "Usage: lymphcad audit " in out
    assert "verify" in out
    assert "who" in out
