"""Put a pack together: one zip, written beside and renamed when complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.bundle import BUNDLE_JSON, Bundle, sha256
from lymphcad.errors import CommandError
from lymphcad.signature import SIGNATURE
from lymphcad_client.pack.install import BUNDLE, CONSTRAINTS, FORMAT, PACK_JSON, WHEELS, this_machine
from lymphcad_client.pack.wheels import collect_wheels, name_and_version, needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

_README = """\
LymphCAD {version} with the bundle {bundle}. {notice}.

For {fits}. No network is needed.
Install:    python3 install.py [FOLDER]     (on Windows: py -{python} install.py [FOLDER])
FOLDER must not exist; without it, 'lymphcad' beside install.py is taken.
Score:      as the last line that install.py prints says
Remove:     delete FOLDER; nothing is written elsewhere but a cache of compiled models
pack.json has the SHA-256 of every wheel and file of the bundle; install.py checks them first.
constraints.txt has the versions of the packages, bundle/model_card.md what the scores mean.
The probability belongs to the cohort that the bundle learned from.
"""


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes
    ----------
    wheels
        How many.
    size
        Of the zip, bytes.
    fits
        On which Python and platform it installs, in words.
    """

    wheels: int
    size: int
    fits: str


def write_pack(bundle: Bundle, out: Path, extra: str, say: Callable[[str], None]) -> Packed:
    """Write a zip from which a machine like this one installs without a network.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    out
        A file that does not exist.
    extra
        Of `lymphcad`: what the other machine scores with.
    say
        Is told what is being done.

    Returns
    -------
    Packed
        The zip is whole.

    Raises
    ------
    CommandError
        If the file exists or cannot be written, or pip fails. No file is there then.
    BundleError
        If the bundle has no merged graph.
    """
    if os.path.lexists(out):
        raise CommandError(f"'{out}' exists: name a new file for the pack")
    for precision in bundle.manifest.precisions:
        bundle.edge(precision)
    part = out.with_name(f"{out.name}.part")  # a kill leaves a file that no one takes for a whole one
    try:
        # Opened before the wheels are collected: a folder that cannot be written to is refused at once.
        with part.open("wb") as file, tempfile.TemporaryDirectory(prefix="lymphcad-edge-pack-") as scratch:
            say("Collecting the wheels")
            wheels = collect_wheels(extra, Path(scratch))
            say(f"Packing {len(wheels)} wheels and the bundle")
            packed = _write(file, bundle, wheels, extra)
            file.flush()
            os.fsync(file.fileno())  # some file systems tell only then that the disk is full
        size = part.stat().st_size
        part.rename(out)
    except OSError as error:
        raise CommandError(
            f"'{out}' could not be written ({error.strerror or error}): make room, or name another file"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return Packed(len(wheels), size, packed)


def _write(file: IO[bytes], bundle: Bundle, wheels: list[Path], extra: str) -> str:
    """Write the zip, and return what it fits, in words."""
    digests = {f"{BUNDLE}/{name}": digest for name, digest in bundle.manifest.files.items()}
    digests[f"{BUNDLE}/{BUNDLE_JSON}"] = bundle.digest
    if (bundle.path / SIGNATURE).is_file():
        digests[f"{BUNDLE}/{SIGNATURE}"] = sha256(bundle.path / SIGNATURE)
    sources: dict[str, Path | bytes] = {name: bundle.path / Path(name).name for name in digests}
    for wheel in wheels:
        sources[f"{WHEELS}/{wheel.name}"] = wheel
        digests[f"{WHEELS}/{wheel.name}"] = sha256(wheel)
    versions = dict(map(name_and_version, wheels))
    constraints = "".join(f"{name}=={version}\n" for name, version in versions.items()).encode()
    digests[CONSTRAINTS] = hashlib.sha256(constraints).hexdigest()
    here, least = this_machine(), needs(wheels)
    pack = {
        "format": FORMAT,
        "bundle": bundle.label,
        "requirement": f"lymphcad[{extra}]=={versions['lymphcad']}",
        **here,
        "needs": least,
        "files": digests,
    }
    system = "macOS" if here["platform"].startswith("macosx") else "glibc"
    fits = f"{here['implementation']} {here['python']} on {here['platform']}"
    fits += f" with {system} {least} or later" if least else ""
    readme = _README.format(
        version=versions["lymphcad"], bundle=bundle.label, notice=RESEARCH_USE_ONLY, fits=fits, python=here["python"]
    )
    sources[CONSTRAINTS] = constraints
    sources["install.py"] = (files("lymphcad_client.pack") / "install.py").read_bytes()
    sources[PACK_JSON] = (json.dumps(pack, indent=2) + "\n").encode()
    sources["README.txt"] = readme.encode()
    top = f"lymphcad-edge-{bundle.manifest.name}"
    write_archive(file, {f"{top}/{name}": source for name, source in sources.items()})
    return fits


def write_archive(file: IO[bytes], members: dict[str, Path | bytes]) -> None:
    """Write a zip that is the same, byte for byte, whenever its members are.

    Parameters
    ----------
    file
        Open for writing.
    members
        Of each name, the file or the content.
    """
    with ZipFile(file, "w") as archive:
        for name, source in sorted(members.items()):
            member = ZipInfo(name)  # dated 1980
            member.create_system, member.external_attr = 3, 0o644 << 16
            member.compress_type = ZIP_STORED if name.endswith(".whl") else ZIP_DEFLATED  # a wheel is a zip itself
            member.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
            content = BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            with content, archive.open(member, "w") as target:
                shutil.copyfileobj(content, target, 1 << 20)
