"""Why something was refused, in sentences for whoever runs the gate: what, why, and which setting to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from proxy.config import Config

_CORRECT: Final = "No setting permits this: the client has to send something else."
_POLICY_ADVICE: Final[Mapping[str, str]] = {
    "class-not-permitted": 'To permit it, add "{class}" to policies.{policy}.allow, and see that no line of `deny` names it.',
    "input-undeclared": 'policies.{policy}.undeclared is "refuse": "keep" lets through what ComfyUI does not declare.',
    "input-linked": "A bounded input needs a literal: the client writes the value, or remove the line of policies.{policy}.inputs.",
    "input-missing": "The client gives this input a value, or remove the line of policies.{policy} that bounds it.",
    "value-of-other-type": "The client sends a value of the right type; the bound stands in policies.{policy}.inputs.",
    "value-too-small": 'The bound is `min` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "value-too-large": 'The bound is `max` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "value-not-a-multiple": 'The bound is `multiple_of` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "value-not-allowed": 'To permit the value, add it to `allow` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "value-denied": 'The value stands in `deny` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "value-too-long": 'The bound is `max_length` of policies.{policy}.inputs, under "{class}.{input}" or "*.{input}".',
    "budget-exceeded": "The bound stands in policies.{policy}.budgets.",
    "too-many-nodes": "The bound is policies.{policy}.max_nodes.",
    "graph-too-deep": "The bound is policies.{policy}.max_depth.",
    "prompt-too-large": "The bound is policies.{policy}.max_prompt_bytes.",
    "workflow-not-pinned": "What may run stands in policies.{policy}.workflows; `free` names the inputs that a client may change.",
    "file-input-linked": "The client names the file itself: what a link brings is known only when the job runs.",
    "file-input-malformed": "The client names the file by a text.",
    "file-input-refused": "The client names a file of its own; files for everybody stand in upstream.shared_inputs.",
    "nowhere-to-run": "No ComfyUI that runs this tenant's jobs has all of it: see `tenants` and `labels` of [[comfyui]], and `comfygate check`.",
    "catalogue-unknown": "The gate had not read ComfyUI's nodes yet: is ComfyUI up, and is upstream.url right?",
}
_CALL_ADVICE: Final[Mapping[str, str]] = {
    "admins-only": "The route is for admins: `comfygate keys create --tenant {tenant} --role admin` makes a key that may use it.",
    "route-refused": "The route is refused to everybody; docs/routes.md says why.",
    "route-unlisted": "The gate has no such route; docs/routes.md lists those it has.",
    "scope-missing": "The key or token has a narrower scope than the route needs: `scopes` of its [[keys]], or the token's.",
    "origin-foreign": "A page of another site used a browser's session: is server.public_url what browsers show?",
    "file-type-refused": "What may be uploaded is set by upstream.upload_types.",
    "picture-too-large": "The picture has more pixels than the gate lets ComfyUI open: the client sends a smaller one.",
    "name-refused": "The client chooses another name.",
    "storage-full": "The bound is `storage` of limits.{limits}; the tenant can delete files.",
    "conversion-failed": "The output keeps its original, which the asset's own address gives: `convert` of the function's output may want another type.",
    "body-too-large": "The bounds are server.max_prompt_bytes and server.max_upload_bytes.",
    "rate-limited": "The bounds are `requests`, `prompts`, `uploads` and `upload_bytes` of limits.{limits}.",
    "queue-full": "The bound is `queued_jobs` of limits.{limits}.",
    "budget-spent": "The bound is `gpu_seconds` of limits.{limits}.",
    "too-many-websockets": "The bounds are `websockets` and `websockets_per_key` of limits.{limits}.",
    "idempotency-key-reused": "The client sent an Idempotency-Key that it had used for another request: it makes a new one for each job.",
    "idempotency-key-in-use": "The client repeated a request before the first one had ended: it waits for Retry-After.",
    "idempotency-unavailable": "The gate's database cannot be written: is the disk of server.state_dir full? The log says why.",
    "credential-missing": "The client sent no key: `Authorization: Bearer <key>`.",
    "key-unknown": "The key was revoked, or is not of this gate: `comfygate keys list` shows those it knows.",
    "key-expired": "The key's time is over: `comfygate keys rotate ID`.",
    "client-gone": "The client closed the connection before it had its answer.",
    "upstream-unavailable": "ComfyUI did not answer: is it up, and is upstream.url right?",
    "upstream-timeout": "ComfyUI took too long to answer: it blocks while it loads models.",
    "internal-error": "The gate failed: its log has the stack under the request id.",
}
ADVICE: Final[Mapping[str, str]] = {**_POLICY_ADVICE, **_CALL_ADVICE}
_COMFYUI: Final[Mapping[str, str]] = {
    "value_not_in_list": "ComfyUI has no such model, file or choice: `/object_info` lists what it has.",
    "prompt_no_outputs": "The workflow saves and shows nothing: it needs a node such as SaveImage.",
    "required_input_missing": "The client leaves out an input that the node needs.",
}
_COMFYUI_ANY: Final = "This is ComfyUI's own rule, and no setting of the gate changes it."


def is_refusal(entry: Mapping[str, Any]) -> bool:
    """Whether a record of the audit trail tells of something refused."""
    return (
        entry.get("decision") == "refused"
        or entry.get("event") == "refused"
        or (entry.get("event") == "login" and entry.get("login") == "bad")
    )


def explain_refusal(entry: Mapping[str, Any], config: Config) -> str:
    """Sentences for a person: who, what, by whom, then each violation with what to change."""
    names = _names(entry, config)
    who = (
        f"{names['tenant']} ({entry.get('subject')})" if entry.get("tenant") else "Somebody whom the gate does not know"
    )
    by = "ComfyUI" if entry.get("by") == "comfyui" else "The gate"
    lines = [f"{by} refused this on {moment(entry.get('time'))}. Request {entry.get('request_id')}."]
    lines.append(f"{who} sent {entry.get('route')} from {entry.get('client')} and got {entry.get('status')}.")
    violations = list(_violations(entry))
    for violation in violations:
        lines += ["", f"  {sentence(violation)}", f"  {advise(violation, str(entry.get('by')), names)}"]
    if more := entry.get("more_violations"):
        lines += ["", f"  And {more} more of the same request."]
    if not violations:
        reason = entry.get("reason") or "no reason was recorded"
        lines += ["", f"  {reason}. {advise({'reason': reason}, 'gate', names)}"]
    return "\n".join(lines)


def sentence(violation: Mapping[str, Any]) -> str:
    """One violation: `node 4 KSampler, steps: found 80, allowed at most 50. The policy …`"""
    node, class_name, input_name = (violation.get(name) for name in ("node", "class", "input"))
    words = f"Node {node} {class_name or ''}".strip() if node is not None else ""
    if input_name is not None:
        words += f", {input_name}"
    found = [f"found {violation['found']}"] if "found" in violation else []
    found += [f"allowed: {violation['allowed']}"] if "allowed" in violation else []
    if found:
        words += (": " if words else "") + ", ".join(found)
    message = str(violation.get("message") or violation.get("reason"))
    return f"{words}. {message} ({violation.get('reason')})" if words else f"{message} ({violation.get('reason')})"


def advise(violation: Mapping[str, Any], by: str, names: Mapping[str, str]) -> str:
    """What to change. names: tenant, policy and limits."""
    reason = str(violation.get("reason"))
    if by == "comfyui":
        return _COMFYUI.get(reason, _COMFYUI_ANY)
    told = {**names, "class": violation.get("class") or "Class", "input": violation.get("input") or "input"}
    return ADVICE.get(reason, _CORRECT).format_map(told)


def moment(text: Any) -> str:
    """A record's time as every command writes times: `2026-11-21 04:02:20 UTC`."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return "a day that was not recorded"


def _violations(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = entry.get("violations")
    yield from (item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()


def _names(entry: Mapping[str, Any], config: Config) -> dict[str, str]:
    tenant = str(entry.get("tenant") or "TENANT")
    settings = config.tenants.get(tenant)
    return {
        "tenant": tenant,
        "policy": settings.policy if settings else "default",
        "limits": settings.limits if settings else "default",
    }
