from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from lymphcad.cli import GROUP, extra_for, main

COMMANDS = sorted(entry_points(group=GROUP).names)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def python(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_subcommand_with_a_whole_sentence(capsys):
    assert not run("--help")
    said = capsys.readouterr().out
    assert len(COMMANDS) >= 4
    assert "Research use only" in said
    assert "..." not in said.partition("Commands:")[2]
    for name in COMMANDS:
        assert f"\n  {name} " in said


def test_no_arguments_is_help(capsys):
    assert run() == 2
    assert "Commands:" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_subcommand(capsys, name):
    assert not run(name, "--help")
    assert f"Usage: lymphcad {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scroe"], "No such command 'scroe'"),
        (["--verbose"], "No such option: --verbose"),
        (["score", "--treshold", "1"], "No such option: --treshold"),
        (["score", "--node"], "'--node' requires an argument"),
        (["serve", "--grpc-port", "eight"], "Invalid value for '--grpc-port'"),
        (["repository"], "Missing argument"),
    ],
)
def test_wrong_use_is_said_in_one_sentence(capsys, arguments, words):
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (sentence,) = (line for line in error.splitlines() if line.startswith("Error: "))
    assert words in sentence


def test_a_missing_extra_is_named(tmp_path):
    program = "import sys; sys.modules['torch'] = None; from lymphcad.cli import main; main(sys.argv[1:])"
    table = tmp_path / "cohort.csv"
    table.write_text("image,row,col,label,patient\na.dcm,1,1,0,x\n")
    done = python(program, "train", str(table), "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr == "lymphcad: this command needs the package torch: pip install 'lymphcad[train]'\n"
    assert done.stdout == ""


def test_extra_for():
    assert extra_for("onnxruntime", "serve") == "serve"
    assert extra_for("torch.nn", "train") == "train"
    assert extra_for("sklearn.metrics", "train") == "train"
    assert extra_for("modelopt", "export") == "export"
    assert extra_for("cyclonedx.model", "export") == "export"
    assert extra_for("streamlit", "score") == "dashboard"
    assert extra_for("tritonclient.grpc", "score") == extra_for("grpc", "score") == "client"
    assert extra_for("cryptography.exceptions", "score") == "client"
    assert extra_for("google.protobuf", "repository") == "serve"
    assert extra_for("nothing_of_ours", "train") is None


def test_a_package_of_nobody_is_our_error_and_not_hidden(tmp_path):
    program = "import sys; sys.modules['pydicom'] = None; from lymphcad.cli import main; main(sys.argv[1:])"
    done = python(program, "score", "a", "--node", "1,1", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_version(capsys):
    assert not run("--version")
    assert capsys.readouterr().out.startswith("lymphcad ")


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom lymphcad.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({name.split('.')[0] for name in sys.modules}"
        " & {'numpy', 'pydantic', 'pydicom', 'PIL', 'tritonclient', 'grpc', 'onnx', 'torch', 'google'})"
    )
    assert python(program).stdout.splitlines()[-1] == "set()"
