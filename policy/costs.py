"""What jobs cost, measured: GPU seconds of like workflows. Has no clock."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from policy.principal import TenantId

DEFAULT_COST_S: Final = 10.0
MIN_COST_S: Final = 0.01
MAX_COST_S: Final = 24 * 3600.0
MAX_WORKFLOWS: Final = 1024
"""Of one tenant, whose costs are remembered."""
_NEW_SHARE: Final = 0.3


class _Means:
    """Of one tenant: exponentially weighted means of GPU seconds, by the workflow's hash; the longest unused forgotten first."""

    def __init__(self) -> None:
        self.by_workflow: OrderedDict[str, float] = OrderedDict()
        self.of_all_s: float | None = None

    def estimate(self, workflow: str) -> float | None:
        mean = self.by_workflow.get(workflow)
        if mean is None:
            return self.of_all_s
        self.by_workflow.move_to_end(workflow)
        return mean

    def measure(self, workflow: str, gpu_s: float, max_workflows: int) -> None:
        self.by_workflow[workflow] = _moved(self.by_workflow.get(workflow), gpu_s)
        self.by_workflow.move_to_end(workflow)
        self.of_all_s = _moved(self.of_all_s, gpu_s)
        if len(self.by_workflow) > max_workflows:
            self.by_workflow.popitem(last=False)


class Costs:
    """GPU seconds of like workflows, by tenant: what a neighbour runs must neither refuse one's jobs nor be told by a refusal.

    max_workflows: of each tenant.
    """

    def __init__(self, default_s: float = DEFAULT_COST_S, max_workflows: int = MAX_WORKFLOWS) -> None:
        self._default_s = default_s
        self._max_workflows = max_workflows
        self._tenants: dict[TenantId, _Means] = {}
        self._mean_of_all_s: float | None = None

    def estimate(self, tenant: TenantId, workflow: str) -> float:
        """GPU seconds: of the tenant's like workflows, else of all its workflows; before its first measurement the default, or less where
        everybody's jobs are shorter."""
        means = self._tenants.get(tenant)
        mean = None if means is None else means.estimate(workflow)
        if mean is not None:
            return mean
        return self._default_s if self._mean_of_all_s is None else min(self._default_s, self._mean_of_all_s)

    def measure(self, tenant: TenantId, workflow: str, gpu_s: float) -> None:
        gpu_s = bounded_cost(gpu_s)
        self._tenants.setdefault(tenant, _Means()).measure(workflow, gpu_s, self._max_workflows)
        self._mean_of_all_s = _moved(self._mean_of_all_s, gpu_s)


def bounded_cost(gpu_s: float) -> float:
    return min(MAX_COST_S, max(MIN_COST_S, gpu_s)) if math.isfinite(gpu_s) else MAX_COST_S


def _moved(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _NEW_SHARE * (value - mean)
