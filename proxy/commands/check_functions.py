"""What `comfygate check` finds of functions: those that no call of a tenant's could ever run."""

from __future__ import annotations

from collections import defaultdict

from policy.principal import TenantId
from proxy.compiled_config import CompiledConfig


def find_refused(compiled: CompiledConfig) -> list[str]:
    """A sentence for each function and policy that does not permit its classes, with the tenants that may call it."""
    tenants: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for tenant, settings in compiled.config.tenants.items():
        for name, given in compiled.callable_by(TenantId(tenant)).items():
            classes = {node["class_type"] for node in given.function.graph.values()}
            refused = ", ".join(sorted(each for each in classes if not given.policy.permits(each)))
            if refused:
                tenants[name, given.function.settings.policy or settings.policy, refused].append(tenant)
    return [
        f"functions/{name}.toml: [policies.{policy}] does not permit {refused}, so every call of {', '.join(callers)} is refused: "
        "put it into allow, or give the function a policy of its own"
        for (name, policy, refused), callers in tenants.items()
    ]
