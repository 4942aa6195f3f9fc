"""Makes what knows what ComfyUI can run."""

from __future__ import annotations

from policy.fitting import fits
from policy.needs import Needs
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.placing import Placing
from proxy.upstream.client import Upstream
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.upstream.node_catalogue import CatalogueSource, Snapshot
from proxy.upstream.upstreams import Upstreams


def build_catalogue(
    upstream: Upstream, first: str, placing: Placing | None = None
) -> CatalogueSource | MergedCatalogue:
    """first: the name of the first ComfyUI. placing: jobs go where what they need is, from now on."""
    if not isinstance(upstream, Upstreams):
        return CatalogueSource(upstream)
    others = {name: CatalogueSource(other, name) for name, other in upstream.others.items()}
    catalogue = MergedCatalogue({first: CatalogueSource(upstream, first), **others})
    if placing is not None:
        _tell_what_fits(placing, catalogue)
    return catalogue


def _tell_what_fits(placing: Placing, catalogue: MergedCatalogue) -> None:
    def snapshot_of(name: str) -> Snapshot:
        part = catalogue.parts.get(name)
        return Snapshot() if part is None else part.snapshot

    def lacks(comfyui: ComfyUISettings, needs: Needs) -> str:
        snapshot = snapshot_of(comfyui.name)
        return fits(needs, snapshot.catalogue, comfyui.labels) if snapshot.is_known else "its catalogue"

    placing.lacks, placing.version = lacks, lambda name: snapshot_of(name).version
