"""A bundle and a repository: digests, signature, golden inputs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lymphcad.bundle import Bundle
from lymphcad.errors import BundleError, CommandError
from lymphcad.golden import GoldenError
from lymphcad.signature import SIGNATURE
from lymphcad_serve.doctor.check import fail, ok, skip, warn
from lymphcad_serve.verify import verify_bundle
from lymphcad_serve.verify_served import verify_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lymphcad_serve.doctor.check import Check

_AHEAD_S = 120


def check_bundle(path: Path, key: Path | None) -> Iterator[Check]:
    """Say whether a bundle is as it was made, by whom, and computes what it did.

    Parameters
    ----------
    path
        The folder.
    key
        File of the public key by whose owner it must be signed.

    Yields
    ------
    Check
        Of the files, the signature and the golden inputs.

    Raises
    ------
    CommandError
        If the key cannot be read.
    """
    try:
        bundle = Bundle(path, key)
    except BundleError as error:
        yield fail("bundle", str(error))
        return
    yield ok("bundle", f"{bundle.label}, {len(bundle.manifest.files)} files as they were made")
    if key is not None:
        yield ok("signature", "of the key's owner")
    elif (path / SIGNATURE).is_file():
        yield warn("signature", "there is one, and nobody said whose it must be", "name the public key with --key")
    else:
        yield skip("signature", "the bundle has none, and none was asked for (--key)")
    try:
        found = verify_bundle(path)
    except GoldenError as error:
        yield fail("golden inputs", str(error))
    except CommandError as error:
        yield skip("golden inputs", str(error))
    else:
        yield ok("golden inputs", f"give here what they gave: {', '.join(found.golden)}")


def check_repository(path: Path) -> Check:
    """Say whether a repository has its bundle's files and ours, and computes what it must."""
    try:
        found = verify_repository(path)
    except (BundleError, GoldenError) as error:
        return fail("repository", str(error))
    golden = ", ".join(found.golden) or "none can be run here"
    return ok("repository", f"{found.label}, {found.files} files as they were written; golden inputs: {golden}")


def check_times(paths: list[Path]) -> Iterator[Check]:
    """Say whether files are from the future: then this machine's clock, or the one that wrote them, is wrong."""
    for path in paths:
        written = max((file.stat().st_mtime for file in path.rglob("*") if file.is_file()), default=0.0)
        ahead = written - time.time()
        if ahead > _AHEAD_S:
            found = f"a file in '{path}' was written {ahead / 60:.0f} minutes from now"
            yield warn("clock and files", found, "set this machine's clock by NTP")
        elif written:
            yield ok("clock and files", f"nothing in '{path}' is from the future")
