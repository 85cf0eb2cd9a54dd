"""Print what lymphcad with some extras needs, so that an image has it in a layer of its own, below the code.

``python3 requirements.py EXTRA... > requirements.txt``, beside a pyproject.toml. On the standard library alone.
"""

import re
import sys
from pathlib import Path

import tomllib


def requirements(project: dict, extras: list[str]) -> list[str]:
    """Return the requirements of ``[project]`` with some extras, each extra's own extras taken apart."""
    found, waiting = list(project["dependencies"]), list(extras)
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            own = re.fullmatch(rf"{project['name']}\[([\w,-]+)\]", line)
            if own:
                waiting += own[1].split(",")
            else:
                found.append(line)
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.stdout.write(
        "\n".join(requirements(tomllib.loads(Path("pyproject.toml").read_text())["project"], sys.argv[1:]))
    )
    sys.stdout.write("\n")
