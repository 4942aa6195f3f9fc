"""What each node class does when it runs; a class of the catalogue without an entry fails when it runs."""

from __future__ import annotations

from standin.nodes import images, loading, sampling, saving, text, unavailable
from standin.nodes.runner import Runner

RUNNERS: dict[str, type[Runner]] = (
    images.RUNNERS | loading.RUNNERS | saving.RUNNERS | text.RUNNERS | sampling.RUNNERS | unavailable.RUNNERS
)
