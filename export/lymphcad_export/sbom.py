"""What software made a bundle: a CycloneDX bill of materials of the Python environment."""

from __future__ import annotations

import platform
import uuid
from datetime import datetime, timezone
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

if TYPE_CHECKING:
    from pathlib import Path

SBOM = "sbom.cdx.json"
_NAMESPACE = uuid.UUID("6ff0f3a1-6f0c-4d0e-9d4f-0a3a7a8f3c11")


def write_sbom(path: Path) -> None:
    """Write the bill of materials (CycloneDX 1.6, JSON).

    The same environment gives the same file: its time is 1970, its serial number that of its contents. Where a package
    was installed from is left out, for that may be a folder of this machine.

    Parameters
    ----------
    path
        The file.
    """
    found = {one.metadata["Name"]: one.version for one in distributions()}
    parts = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
        )
        for name, version in sorted(found.items())
    ]
    python = platform.python_version()
    parts.append(
        Component(
            name=platform.python_implementation(),
            version=python,
            type=ComponentType.PLATFORM,
            bom_ref=f"python=={python}",
        )
    )
    listed = "\n".join(part.bom_ref.value or "" for part in parts)
    bom = Bom(components=parts, serial_number=uuid.uuid5(_NAMESPACE, listed))
    bom.metadata.timestamp = datetime.fromtimestamp(0, timezone.utc)
    bom.metadata.component = Component(name="bundle", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="bundle")
    bom.register_dependency(bom.metadata.component, parts)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
