"""The ``lymphcad`` command. Each stage registers its subcommands as entry points; one is loaded when it is called."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint, entry_points, requires
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command_from_info, get_group
from typer.models import CommandInfo

import lymphcad
from lymphcad.errors import InterruptedByUser, LymphcadError, ProofError

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUP = "lymphcad.commands"
WRONG_COMMAND = 2
PROOF_FAILED = 4
INTERRUPTED = 130
_DISTRIBUTIONS = {
    "cyclonedx": "cyclonedx-python-lib",
    "google": "tritonclient",
    "grpc": "tritonclient",
    "modelopt": "nvidia-modelopt",
    "pytriton": "nvidia-pytriton",
    "sklearn": "scikit-learn",
}


class _Stages(TyperGroup):
    """Finds subcommands by entry point."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        found: Iterable[EntryPoint] = entry_points(group=GROUP, name=cmd_name)
        for entry in found:
            loaded = entry.load()
            if isinstance(loaded, typer.Typer):  # with subcommands of its own
                group = get_group(loaded)
                group.name = cmd_name
                return group
            info = CommandInfo(name=cmd_name, callback=loaded)
            return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
        return None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the subcommands, each with its whole first sentence."""
        with formatter.section("Commands"):
            names = self.list_commands(ctx)
            formatter.write_dl([(name, self.get_command(ctx, name).get_short_help_str(limit=200)) for name in names])


app = typer.Typer(cls=_Stages, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lymphcad {lymphcad.__version__}. {lymphcad.RESEARCH_USE_ONLY}.")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """LymphCAD: computer-aided diagnosis of cervical lymph node metastasis on CT.

    Research use only; not a medical device.
    """
    del version


def main(arguments: list[str] | None = None) -> Any:
    """Run a command, and end it with one sentence where the user can have caused the error.

    Parameters
    ----------
    arguments
        In place of the process's own.

    Raises
    ------
    SystemExit
        0 done, 2 the command was wrong, 3 some items were not scored, 4 a proof failed, 130 interrupted.
    """
    try:
        app(args=arguments, prog_name="lymphcad")
    except LymphcadError as error:
        _say(str(error))
        stopped, failed = isinstance(error, InterruptedByUser), isinstance(error, ProofError)
        sys.exit(INTERRUPTED if stopped else PROOF_FAILED if failed else WRONG_COMMAND)
    except ModuleNotFoundError as error:
        given = sys.argv[1:] if arguments is None else arguments
        extra = extra_for(error.name or "", next((word for word in given if not word.startswith("-")), ""))
        if extra is None:
            raise
        _say(f"this command needs the package {error.name}: pip install 'lymphcad[{extra}]'")
        sys.exit(WRONG_COMMAND)


def extra_for(module: str, command: str) -> str | None:
    """Return the extra to install for a subcommand that lacks a module, or None if no extra brings it.

    Parameters
    ----------
    module
        Which could not be imported.
    command
        The subcommand; where its stage's own extra brings the module, it is that one.

    Returns
    -------
    str or None
        E.g. ``train``.
    """
    package = module.split(".")[0]
    wanted = _DISTRIBUTIONS.get(package, package.replace("_", "-").lower())
    extras: list[str] = []
    for line in requires("lymphcad") or []:
        match = re.match(r"""([A-Za-z0-9._-]+).*extra == ['"]([a-z-]+)['"]""", line)
        if match and match[1].lower() == wanted and match[2] != "dev":
            extras.append(match[2])
    if not extras:
        return None
    stages = {entry.module.split(".")[0].removeprefix("lymphcad_") for entry in entry_points(group=GROUP, name=command)}
    own = stages.intersection(extras)
    return own.pop() if own else extras[0]


def _say(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"lymphcad: {message}", markup=False)
