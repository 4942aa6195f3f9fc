"""Makes what knows what ComfyUI can run."""

from __future__ import annotations

from proxy.upstream.client import Upstream
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.upstreams import Upstreams


def build_catalogue(upstream: Upstream, first: str) -> CatalogueSource | MergedCatalogue:
    """first: the name of the first ComfyUI."""
    if not isinstance(upstream, Upstreams):
        return CatalogueSource(upstream)
    others = {name: CatalogueSource(other, name) for name, other in upstream.others.items()}
    return MergedCatalogue({first: CatalogueSource(upstream, first), **others})
