"""What images are built from: checked as text, and their steps run here, where nothing builds images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import tomllib
import typer
from deploying import DEPLOY, ROOT, containers_of, need
from orthanc import free_port

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.cli import app

IMAGES = DEPLOY / "images"
FILES = sorted(IMAGES.glob("Containerfile.*"))
NAMES = {file.suffix[1:]: file for file in FILES}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Containerfile, each on one line; comments between continued lines go."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    start = max(place for place, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


@pytest.fixture(params=FILES, ids=sorted(NAMES))
def file(request):
    return request.param


def hadolint(file: Path, **options) -> subprocess.CompletedProcess:
    program = Path(sys.executable).parent / "hadolint"
    words = [str(program), "--no-color", "--config", str(IMAGES / "hadolint.yaml"), str(file)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


def test_hadolint_has_nothing_to_say(file):
    done = hadolint(file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hadolint_would_have(file, tmp_path):
    wrong = tmp_path / "Containerfile"
    for change in (
        ("io.lymphcad.notice", "io.lymphcad.other"),
        ("WORKDIR /", "WORKDIR "),
        ("RUN python3", "RUN cd /tmp && sudo python3"),
    ):
        assert change[0] in file.read_text()
        wrong.write_text(file.read_text().replace(*change))
        assert hadolint(wrong).returncode == 1, change


def test_it_is_built_on_what_a_digest_names(file):
    found = instructions(file)
    bases = [text for word, text in found if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(
            r"\$\{(TRITON|PYTHON)_IMAGE\}@\$\{\1_DIGEST(:-give-it-with---build-arg-[^}]*)?\}( AS build)?", base
        )
    # No digest of ours, for we have seen none: without one the build ends, naming the argument.
    arguments = [text for word, text in found if word == "ARG"]
    assert not any("DIGEST=" in text for text in arguments)
    assert ":latest" not in file.read_text()


def test_nothing_is_fetched_but_packages(file):
    for word, text in instructions(file):
        assert word != "ADD"
        assert not re.search(r"\b(curl|wget|git|apt-get|apt|sudo)\b", text) or word == "LABEL"
        assert not re.search(r"https?://", text) or word == "HEALTHCHECK"
        if "pip" in text.split() and " install " in text:
            assert "--no-cache-dir" in text
            assert "--constraint" in text or "--no-index" in text
        assert not re.search(r"(PASSWORD|TOKEN|SECRET)", text)


def test_code_comes_after_what_it_needs(file):
    """So that a change of code builds, and sends, one small layer."""
    found = [f"{word} {text}" for word, text in instructions(file)]
    needs = next(place for place, text in enumerate(found) if "--requirement" in text)
    assert found.index("COPY . .") > needs
    final = [f"{word} {text}" for word, text in last_stage(file)]
    (copied,) = [place for place, text in enumerate(final) if text.startswith("COPY ")]
    (added,) = [place for place, text in enumerate(final) if "/wheel/*.whl" in text]
    assert copied < added


def test_who_runs_in_it_owns_nothing_but_what_is_written(file):
    stage = last_stage(file)
    users = [text for word, text in stage if word == "USER"]
    assert users == ["10001:10001"]
    after = stage[stage.index(("USER", users[0])) :]
    assert not any(word in ("RUN", "COPY") for word, _ in after)
    labels = next(text for word, text in stage if word == "LABEL")
    assert f'io.lymphcad.notice="{RESEARCH_USE_ONLY}"' in labels


def test_the_pods_give_it_options_that_it_has(rendered):
    """Typer itself reads the words; each file is then looked for, which no one has here."""
    entries = {name: json.loads(dict(last_stage(file))["ENTRYPOINT"]) for name, file in NAMES.items()}
    assert entries == {
        name: ["lymphcad", words]
        for name, words in {"server": "serve", "plan": "plan", "dashboard": "dashboard"}.items()
    }
    seen = set()
    for overlay in ("overlays/cpu", "overlays/gpu"):
        for one in rendered(overlay):
            for container in containers_of(one):
                image = container["image"].partition("@")[0].partition("registry.example/lymphcad/")[2]
                if image:
                    name = image.removesuffix("-cpu")
                    command = typer.main.get_command(app).get_command(None, entries[name][1])
                    command.make_context(name, list(container["args"]), resilient_parsing=False)
                    seen.add(name)
    assert seen == NAMES.keys()


def allowed(path: str) -> bool:
    """Tell whether a file goes into an image's context, as .dockerignore says: the last line that matches decides."""
    taken = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, take = line.removeprefix("!").removeprefix("**/"), line.startswith("!")
        parts = path.split("/")
        heads = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        if any(fnmatch(head, pattern) for head in heads) or ("**" in line and pattern in parts):
            taken = take
    return taken


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Path:
    """Return the files that a build sees."""
    need("git", "git")
    folder = tmp_path_factory.mktemp("context")
    words = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for path in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
        if allowed(path) and (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)
    return folder


def test_no_key_and_no_data_is_sent_to_a_build(context):
    assert not any(
        allowed(path) for path in ("deploy/tls/authority/tls.key", "deploy/compose.env", ".git/config", "x.dcm")
    )
    assert {path.name for path in context.iterdir()} == {
        "LICENSE",
        "README.md",
        "bundles",
        "client",
        "constraints.txt",
        "dashboard",
        "deploy",
        "export",
        "lymphcad",
        "model_repository",
        "pyproject.toml",
        "train",
    }
    assert {path.name for path in (context / "bundles").iterdir()} == {"demo"}


def test_the_wheel_is_built_of_what_is_sent(context, tmp_path):
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*words, str(tmp_path), str(context)], check=True)
    assert len(list(tmp_path.glob("lymphcad-*.whl"))) == 1


def requirements(folder: Path, *extras: str) -> list[str]:
    words = [sys.executable, str(IMAGES / "requirements.py"), *extras]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()


def test_what_an_extra_needs_is_all_that_it_needs(context):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    assert requirements(context) == base
    assert requirements(context, "client") == [*base, *extras["client"]]
    found = requirements(context, "dashboard")
    assert set(found) >= {*base, *extras["client"], *extras["edge-min"]}
    assert len(found) == len(set(found))
    assert not any(line.startswith("lymphcad") for line in found)
    # A server needs none of what trains and none of what answers in its own process.
    taken = re.search(r"requirements.py (.*?) >", NAMES["server"].read_text())[1].split()
    assert not any(
        re.match("torch|openvino|onnx|streamlit|nvidia-pytriton", line) for line in requirements(context, *taken)
    )


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory):
    """Return where TensorRT-RTX 1.7.1 lies under TensorRT's name; both tell their version in the same way."""
    libraries = pytest.importorskip("tensorrt_rtx_libs", reason="no TensorRT-RTX: pip install 'lymphcad[rtx]'")
    folder = tmp_path_factory.mktemp("lib")
    (folder / "libnvinfer.so.1").symlink_to(Path(libraries.__path__[0]) / "libtensorrt_rtx.so.1")
    return folder


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("1.7.1.116", ""),
        (
            "1.7.2.9",
            "Triton's image has TensorRT 1.7.1, and 1.7.2.9 was asked for: give that version with TENSORRT\n",
        ),
        ("11.4.0.106", "Triton's image has no libnvinfer.so.11: give with TENSORRT the version in its release notes\n"),
    ],
)
def test_the_builder_has_the_tensorrt_of_triton(tensorrt, asked, sentence):
    words = [sys.executable, str(IMAGES / "same_tensorrt.py"), asked]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tensorrt)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1 if sentence else 0, sentence)


@pytest.mark.network
def test_its_steps_install_what_runs(context, tmp_path):
    """Each RUN and COPY of a Containerfile, with this Python in the base image's place and folders in the roots'."""
    build, wheel, venv = tmp_path / "build", tmp_path / "wheel", tmp_path / "opt"
    build.mkdir()
    places = {"/opt/lymphcad": str(venv), "/wheel": str(wheel)}
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)

    def here(text: str) -> str:
        return re.sub("|".join(places), lambda found: places[found[0]], text)

    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    for word, text in instructions(NAMES["server"]):
        if word == "COPY" and "--from" not in text:
            *sources, target = text.split()
            assert target in (".", "./")
            for source in sources:
                if source == ".":
                    shutil.copytree(context, build, dirs_exist_ok=True)
                else:
                    shutil.copy(context / source, build)
        if word == "RUN":
            step = re.sub(r"--mount=\S+", "", text).partition("&& install -d")[0]
            done = subprocess.run(
                ["sh", "-ec", here(step)], cwd=build, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    for words in (["--help"], ["serve", "--help"], ["score", "--help"]):
        done = subprocess.run(
            [str(venv / "bin" / "lymphcad"), *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    # All of it, not only the help: it gets as far as what it needs and has not.
    ports = ["--grpc-port", str(free_port()), "--metrics-port", str(free_port())]
    words = ["serve", "--bundle", str(context / "bundles" / "demo"), "--target", "cpu", *ports]
    done = subprocess.run(
        [str(venv / "bin" / "lymphcad"), *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no tritonserver on PATH" in done.stderr


@pytest.mark.network
def test_what_the_page_needs_goes_together(context, tmp_path):
    """The step of the other image that takes minutes, up to what it would install."""
    (step,) = [text for word, text in instructions(NAMES["dashboard"]) if word == "RUN" and "--requirement" in text]
    step = step.replace("--python /opt/lymphcad/bin/python install", "install --dry-run --ignore-installed --quiet")
    for name in ("pyproject.toml", "constraints.txt", "deploy/images/requirements.py"):
        shutil.copy(context / name, tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    words = ["sh", "-ec", f"{step} --report report.json"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    names = {one["metadata"]["name"].lower() for one in report["install"]}
    assert {"streamlit", "tritonclient", "highdicom", "numpy"} <= names
    assert not {"torch", "nvidia-pytriton"} & names
