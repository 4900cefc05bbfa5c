"""The manifests of deploy/, as kustomize builds them."""

from __future__ import annotations

from typing import Any

import pytest
from kustomized import WAYS, Build, built, kustomize


@pytest.fixture(scope="session")
def build() -> Build:
    """The resources that a way of running it consists of."""
    reason = kustomize()
    if reason:
        pytest.skip(reason)
    return built


@pytest.fixture(params=WAYS)
def resources(request: pytest.FixtureRequest, build: Build) -> list[dict[str, Any]]:
    """The resources of each way in turn."""
    return build(request.param)
