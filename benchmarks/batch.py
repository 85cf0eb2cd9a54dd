"""How much of a server's speed a whole batch gets: ``python -m benchmarks.batch [--json] [--memory]``.

In one run, contenders in turn: a bare asynchronous client that sends ready-made tensors, and ``lymphcad score`` as a
user runs it, from 512 x 512 DICOM files to the table of results. The same tritonserver answers both, on the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports

from benchmarks.batch_files import NODES_A_SLICE, write_files
from benchmarks.bookkeeping import bookkeeping_ms
from benchmarks.processes import Worker, cpu_seconds, family, machine
from benchmarks.score_command import memory_of, run_score
from benchmarks.serving import RESNET50_WINDOW, untrained
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle

if TYPE_CHECKING:
    from benchmarks.batch_files import Files
    from benchmarks.score_command import Run

IN_FLIGHT = (4, 8, 16)
"""Requests of the bare client; the fastest count, with tensors in shared memory or in the message, is the limit."""
TABLES = {
    "uncompressed": {"jpeg2000": False, "grouped": False},
    "uncompressed, grouped": {"jpeg2000": False, "grouped": True},
    "jpeg2000": {"jpeg2000": True, "grouped": False},
}
_SLOW, _SLOW_SHARE = "jpeg2000", 5
"""Of this one a fifth of the nodes is scored: decoding takes ten times what all else does."""
_SAME = 0.011
_MEMORY_EVERY = 1000


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes
    ----------
    seconds
        Of a window of the bare client.
    rounds
        In which every contender has its turn.
    few, many
        Nodes of the short and the long table: the difference between both is the steady state.
    memory
        Nodes of the run whose memory is looked at; 0 for none.
    options
        Of ``lymphcad score``, e.g. ``--jobs 2``.
    """

    seconds: float
    rounds: int
    few: int
    many: int
    memory: int
    options: list[str]


def measure(bundle: Bundle, files: Files, settings: Settings) -> dict[str, Any]:
    """Measure one bundle.

    Parameters
    ----------
    bundle
        What is served.
    files
        What is scored.
    settings
        How much.

    Returns
    -------
    dict
        ``bare``: ``images_s`` by way and requests in flight, medians over the rounds, ``limit``, the highest of them,
        and ``client_cpu_ms`` and ``server_cpu_ms`` an image there. ``score``, for each table: ``nodes_s`` in the steady
        state, ``lowest_highest`` of it, ``ratio`` to the limit, ``whole_nodes_s`` of the long table with start and end,
        ``client_cpu_ms`` and ``server_cpu_ms`` a node in the steady state. ``bookkeeping``: ``ms`` a node as
        `bookkeeping_ms` returns them, and ``share``, their sum as a part of the time that an uncompressed node takes.
        ``memory`` as `memory_of` returns it.

    Raises
    ------
    RuntimeError
        If the bare client's probabilities and those in the results differ.
    """
    with contextlib.ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        write_repository(bundle, models, Target.EMBEDDED)
        server = stack.enter_context(Server(models, free_ports()))
        ready_made = files.table(len(files.samples))
        bare = Worker("benchmarks.bare", server.address.removeprefix("grpc://"), str(bundle.path), str(ready_made))
        stack.callback(bare.close)
        ways = [(shared, count) for shared in (True, False) for count in IN_FLIGHT]
        rates: dict[tuple[bool, int], list[dict[str, float]]] = {way: [] for way in ways}
        runs: dict[str, list[tuple[Run, Run]]] = {name: [] for name in TABLES}
        for turn in range(-1, settings.rounds):  # the first one warms up
            bare_turns = [(way, _bare_turn(bare, server, *way, settings.seconds)) for way in _in_turn(ways, turn)]
            if turn < 0:
                continue
            for way, (found, _) in bare_turns:
                rates[way].append(found)
            expected = bare_turns[0][1][1]
            for name in _in_turn(list(TABLES), turn):
                share = _SLOW_SHARE if name == _SLOW else 1
                few, many = (
                    run_score(files.table(n, **TABLES[name]), n, server, settings.options, keep=len(files.samples))
                    for n in (settings.few // share, settings.many // share)
                )
                if not TABLES[name]["grouped"]:
                    _check_same(expected, many.probabilities)
                runs[name].append((few, many))
        results = {"bare": _of_bare(rates)}
        results["score"] = {name: _of_score(pairs, results["bare"]["limit"]) for name, pairs in runs.items()}
        ms = bookkeeping_ms(files.table(settings.many), bundle)
        share = sum(ms.values()) * results["score"]["uncompressed"]["nodes_s"] / 1000
        results["bookkeeping"] = {"ms": ms, "share": round(share, 4)}
        if settings.memory:
            every = min(_MEMORY_EVERY, settings.memory // 10)
            results["memory"] = memory_of(
                files.table(settings.memory), settings.memory, server, settings.options, every=every
            )
    return results


def _in_turn(contenders: list[Any], turn: int) -> list[Any]:
    """Return contenders in an order that is turned round every time, so that what drifts hits all alike."""
    return contenders if turn % 2 else contenders[::-1]


def _bare_turn(
    bare: Worker,
    server: Server,
    shared: bool,
    in_flight: int,
    seconds: float,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return rate and CPU time an image, ms, of client and server; and the probabilities."""
    served = family(server.pid)
    before = cpu_seconds(bare.pids), cpu_seconds(served)
    found = bare.order(shared=shared, in_flight=in_flight, seconds=seconds)
    client, serving = cpu_seconds(bare.pids) - before[0], cpu_seconds(served) - before[1]
    cost = {"client": 1000 * client / found["images"], "server": 1000 * serving / found["images"]}
    return {"rate": found["rate"], **cost}, found["probabilities"]


def _check_same(expected: dict[str, float], found: list[float]) -> None:
    apart = [abs(found[int(node)] - probability) for node, probability in expected.items() if int(node) < len(found)]
    if not apart or max(apart) > _SAME:
        raise RuntimeError(
            f"the probabilities of the bare client and in the results differ by up to {max(apart or [1])}"
        )


def _of_bare(rates: dict[tuple[bool, int], list[dict[str, float]]]) -> dict[str, Any]:
    medians = {way: {key: median(one[key] for one in turns) for key in turns[0]} for way, turns in rates.items()}
    best = max(medians, key=lambda way: medians[way]["rate"])
    by_way: dict[str, dict[str, float]] = {"shared_memory": {}, "message": {}}
    for (shared, count), found in medians.items():
        by_way["shared_memory" if shared else "message"][str(count)] = round(found["rate"], 1)
    return {
        "images_s": by_way,
        "limit": round(medians[best]["rate"], 1),
        "client_cpu_ms": round(medians[best]["client"], 2),
        "server_cpu_ms": round(medians[best]["server"], 2),
    }


def _of_score(pairs: list[tuple[Run, Run]], limit: float) -> dict[str, Any]:
    """Return the figures of one table; what both runs of a pair have in common, start and end, falls out."""
    steady = [(many.nodes - few.nodes) / (many.wall_s - few.wall_s) for few, many in pairs]
    client = [1000 * (many.client_s - few.client_s) / (many.nodes - few.nodes) for few, many in pairs]
    serving = [1000 * (many.server_s - few.server_s) / (many.nodes - few.nodes) for few, many in pairs]
    return {
        "nodes_s": round(median(steady), 1),
        "lowest_highest": [round(min(steady), 1), round(max(steady), 1)],
        "ratio": round(median(steady) / limit, 3),
        "whole_nodes_s": round(median(many.nodes / many.wall_s for _, many in pairs), 1),
        "client_cpu_ms": round(median(client), 2),
        "server_cpu_ms": round(median(serving), 2),
    }


def render(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    settings, about = results["settings"], results["machine"]
    heads = ["bundle", "what", "nodes/s", "of bare", "nodes/s with start and end", "client, CPU ms", "server, CPU ms"]
    rows = [heads, ["---"] * len(heads)]
    for name, found in results["bundles"].items():
        bare = found["bare"]
        rows.append([name, "bare client", bare["limit"], "1", "", bare["client_cpu_ms"], bare["server_cpu_ms"]])
        for what, one in found["score"].items():
            costs = [one["client_cpu_ms"], one["server_cpu_ms"]]
            rows.append([name, what, one["nodes_s"], f"{one['ratio']:.2f}", one["whole_nodes_s"], *costs])
    lines = [
        f"Medians of {settings['rounds']} rounds; bare: windows of {settings['seconds']:g} s, the best of"
        f" {', '.join(map(str, IN_FLIGHT))} requests in flight, tensors in shared memory or in the message. The rest:"
        f" `lymphcad score --no-overlays`{''.join(' ' + one for one in settings['options'])} from {settings['files']}"
        f" files of 512 x 512, {settings['many']} nodes less {settings['few']}; grouped: {NODES_A_SLICE} nodes of a"
        f" slice after each other; of {_SLOW}, a fifth of the nodes. All share {about['cores']} cores of"
        f" {about['cpu']} ({', '.join(about['flags'])}).",
        "",
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ]
    for name, found in results["bundles"].items():
        kept = found["bookkeeping"]
        lines.append(
            f"Journal and CSV, {name}: {kept['ms']['journal']} and {kept['ms']['csv']} ms a node,"
            f" {100 * kept['share']:.1f} % of the time that one takes."
        )
        if "memory" in found:
            memory = found["memory"]
            (first, *_, small), (last, *_, large) = memory["samples"][0], memory["samples"][-1]
            lines.append(
                f"Memory, {name}: {small} MB after {first} nodes and {large} after {last}, all processes together;"
                f" at most {memory['grown_mb']} MB more than at first ({memory['main_grown_mb']} in the main one)."
            )
    lines.append("Versions: " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, action="append", help="what is served; without it, an untrained ResNet50 and the demo"
    )
    parser.add_argument("--files", type=int, default=200, help="distinct slices")
    parser.add_argument("--nodes", type=int, nargs=2, default=(500, 2500), help="of the short and the long table")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a window of the bare client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, nargs="?", const=10_000, default=0, help="look at the memory of a long run"
    )
    parser.add_argument("--options", default="", help="of lymphcad score, e.g. '--jobs 2'")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    settings = Settings(options.seconds, options.rounds, *options.nodes, options.memory, options.options.split())
    about = machine()
    results: dict[str, Any] = {"bundles": {}}
    with tempfile.TemporaryDirectory() as folder:
        if options.bundle:
            bundles = {path.name: Bundle(path) for path in options.bundle}
        else:
            made = untrained(Path(folder) / "resnet50", "resnet50", RESNET50_WINDOW, mirrored=False, int8=True)
            bundles = {"resnet50": made, "demo": Bundle(DEMO_BUNDLE)}
        files = write_files(Path(folder) / "files", options.files)
        for name, bundle in bundles.items():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            results["bundles"][name] = measure(bundle, files, settings)
    results["settings"] = {
        "files": options.files, "few": settings.few, "many": settings.many, "seconds": settings.seconds,
        "rounds": settings.rounds, "options": settings.options, "memory": settings.memory,
    }  # fmt: skip
    results["machine"] = about
    if options.json:
        print(json.dumps(results, indent=2))
    print(render(results), file=sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    main()
