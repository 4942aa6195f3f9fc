"""Makes what runs functions at a ComfyUI that was restarted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policy.catalogue import Catalogue
from policy.functions.function import Function
from policy.namespace import Folder
from proxy.config.comfyui import ComfyUISettings
from proxy.dependencies import Dependencies
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.store_placing import forget_models, note_models
from proxy.jobs.warmups import Warmups
from proxy.observability.metrics import Metrics
from proxy.persistence.operations import Database
from proxy.upstream.merged_catalogue import MergedCatalogue


def build_warmups(parts: Dependencies, database: Database, metrics: Metrics) -> Warmups:
    """By the configuration that is in force when one is restarted."""

    def settings_of(name: str) -> ComfyUISettings | None:
        return next((each for each in parts.compiled.config.comfyuis if each.name == name), None)

    def functions(name: str) -> Sequence[Function]:
        settings, known = settings_of(name), parts.compiled.functions
        return [known[function] for function in settings.warmup] if settings is not None else []

    async def catalogue_of(name: str) -> Catalogue:
        catalogue = parts.catalogue
        source = catalogue.parts.get(name) if isinstance(catalogue, MergedCatalogue) else catalogue
        if source is None:
            raise UpstreamUnavailable
        return (await source.known()).catalogue

    def output(name: str) -> Path | None:
        config, settings = parts.compiled.config, settings_of(name)
        if settings is not None and settings.shared_directory:
            settings = config.comfyuis[0]
        if settings is None or settings.directory is None:
            return None
        return config.resolve(settings.directory) / Folder.OUTPUT.value

    async def note(name: str, models: Sequence[str]) -> None:
        if models:
            await database.run(note_models, name, models)
        else:
            await database.run(forget_models, name)

    def counted(name: str, result: str) -> None:
        metrics.warmed.add((name, result))
        metrics.warmups.labels(name, result).inc()

    return Warmups(parts.upstream, parts.registry, note, functions, catalogue_of, output, counted)
