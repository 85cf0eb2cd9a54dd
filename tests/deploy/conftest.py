"""Manifests, rendered once."""

from __future__ import annotations

from functools import cache

import pytest
from deploying import KUBERNETES, kustomize, unpack_kubectl


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory):
    return unpack_kubectl(tmp_path_factory.mktemp("kubectl"))


@pytest.fixture(scope="session")
def rendered(kubectl):
    """Return what renders a folder of deploy/kubernetes."""
    return cache(lambda folder: kustomize(kubectl, KUBERNETES / folder))


@pytest.fixture(scope="session")
def with_everything(kubectl, tmp_path_factory):
    """Return the gpu overlay with the components that it does not have by itself."""
    # Kustomize takes relative paths only.
    folder = tmp_path_factory.mktemp("cluster")
    up = "../" * (len(folder.parts) - 1)
    root = up + str(KUBERNETES).lstrip("/")
    (folder / "kustomization.yaml").write_text(
        f"namespace: lymphcad\nresources: [{root}/overlays/gpu]\n"
        f"components: [{root}/components/signed, {root}/components/sign-in]\n"
    )
    return kustomize(kubectl, folder)
