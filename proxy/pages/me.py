"""Who am I: the caller's own view of tenant, policy, limits and jobs, for programs and for people. Shows what it is given and finds nothing out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from policy.call import ClientReply
from proxy.jobs.forecasts import JobForecast
from proxy.limits.effective_limits import LimitStatus
from proxy.observability.refusal_advice import moment, sentence
from proxy.pages.document import PRIVATE_HEADERS, document, template
from proxy.pages.words import limit_in_words, scopes_in_words, size_in_words

_ME: Final = template("me.html")
_VARY: Final = ("Vary", "Accept")
_LOGOUT: Final = '<form method="post" action="logout"><button class="second" type="submit">Sign out</button></form>'
_SIGN_OUT_WARNING: Final = (
    '<p class="quiet small">Signing out removes what this browser keeps of your work: save open workflows first. '
    "What is saved stays on the server.</p>"
)
_NO_SESSION: Final = '<p class="quiet small">You came with a key or by another login, not by the sign-in page: there is nothing to sign out of here.</p>'
MAX_SHOWN: Final = 5
"""Violations of one refusal on the page; programs get all that are kept."""
_WITH_TIME: Final = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True, slots=True)
class MeView:
    """What `/gate/me` shows. subject: the key's id, or the token's subject; times are Unix times in seconds, None for never.

    note: of the key, what people call it; refusals: the tenant's last ones, newest first, as proxy/observability/recent_refusals.py keeps them.
    functions: titles of those that it may call, by name. takes_workflows: whether it may send workflows of its own, so that the web UI is of use.
    policy: sentences; gpu: the budget of GPU seconds, None without one; session_ends_at_s: None for a caller without a browser session.
    """

    tenant: str
    subject: str
    role: str
    scopes: tuple[str, ...]
    policy: list[str]
    limits: tuple[LimitStatus, ...]
    jobs_pending: int
    jobs_running: int
    gpu: LimitStatus | None = None
    key_expires_at_s: float | None = None
    session_ends_at_s: float | None = None
    note: str = ""
    refusals: tuple[Mapping[str, Any], ...] = ()
    jobs: tuple[JobForecast, ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)
    takes_workflows: bool = True


def wants_html(accept: str) -> bool:
    """Whether an Accept field (RFC 9110, 12.5.1) asks for a page by name; `*/*`, which programs send, is answered with JSON."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in weights:
            weights[kind] = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
    return weights["text/html"] > 0 and weights["text/html"] >= weights["application/json"]


def me_json(view: MeView) -> ClientReply:
    value: dict[str, Any] = {
        "tenant": view.tenant,
        "subject": view.subject,
        "note": view.note,
        "role": view.role,
        "scopes": list(view.scopes),
        "policy": list(view.policy),
        "functions": list(view.functions),
        "limits": [_limit_value(limit) for limit in view.limits],
        "gpu": _limit_value(view.gpu) if view.gpu else None,
        "jobs": {
            "pending": view.jobs_pending,
            "running": view.jobs_running,
            "unfinished": [_job_value(job) for job in view.jobs],
        },
        "key_expires": _iso(view.key_expires_at_s),
        "session_ends": _iso(view.session_ends_at_s),
        "refusals": list(view.refusals),
    }
    return ClientReply(200, value, headers=(*PRIVATE_HEADERS, _VARY))


def me_page(view: MeView) -> ClientReply:
    session = f"<dt>Session ends</dt><dd>{_moment(view.session_ends_at_s)}</dd>" if view.session_ends_at_s else ""
    limits = (*view.limits, view.gpu) if view.gpu else view.limits
    content = _ME.substitute(
        tenant=escape(view.tenant),
        subject=_who(view),
        role=escape(view.role),
        scopes=escape(scopes_in_words(view.scopes)) or "nothing",
        expires=_moment(view.key_expires_at_s),
        session=session,
        jobs=f"{view.jobs_pending} waiting, {view.jobs_running} running{_jobs_list(view.jobs)}",
        policy="\n".join(f"<li>{escape(line)}</li>" for line in view.policy) or "<li>None: ask for a policy.</li>",
        functions=_functions_list(view.functions),
        limits=_limits_table(limits) if limits else '<p class="quiet">None.</p>',
        refusals=_refusals_list(view.refusals)
        if view.refusals
        else '<p class="quiet">None since the gate was started.</p>',
        front="../" if view.takes_workflows else "run",
        open="Open ComfyUI" if view.takes_workflows else "Open the functions",
        logout=_LOGOUT if view.session_ends_at_s else "",
        warning=_SIGN_OUT_WARNING if view.session_ends_at_s else _NO_SESSION,
    )
    return document(view.tenant, content, is_wide=True, headers=(_VARY,))


def _functions_list(functions: Mapping[str, str]) -> str:
    rows = "".join(
        f'<li><a href="run/{escape(name)}">{escape(title)}</a> <code>POST /gate/run/{escape(name)}</code></li>'
        for name, title in functions.items()
    )
    how = '<p><a href="docs">How to call them</a></p>'
    return f"<h2>Functions</h2>\n<ul>{rows}</ul>\n{how}" if rows else ""


def _who(view: MeView) -> str:
    """The key's note, where it has one: people do not know keys by their ids."""
    if view.note:
        return f'{escape(view.note)} <span class="quiet">(key <code>{escape(view.subject)}</code>)</span>'
    return f"<code>{escape(view.subject)}</code>"


def _jobs_list(jobs: Iterable[JobForecast]) -> str:
    rows = "".join(_job_row(job) for job in jobs)
    return f'<ol class="plain small">{rows}</ol>' if rows else ""


def _job_row(job: JobForecast) -> str:
    what = "runs" if job.state == "running" else f"is number {job.position} of yours"
    when = "" if job.starts_at_s is None else f", begins about {_moment(job.starts_at_s)}"
    return f"<li><code>{escape(job.prompt_id)}</code> {what}{when}</li>"


def _job_value(job: JobForecast) -> dict[str, Any]:
    return {
        "id": job.prompt_id,
        "state": job.state,
        "position": job.position,
        "estimated_start": _iso(job.starts_at_s),
    }


def _refusals_list(refusals: Iterable[Mapping[str, Any]]) -> str:
    return f'<ul class="plain">{"".join(_refusal(entry) for entry in refusals)}</ul>'


def _refusal(entry: Mapping[str, Any]) -> str:
    by = "ComfyUI" if entry["by"] == "comfyui" else "The gate"
    times = f", {entry['count']} times" if entry["count"] > 1 else ""
    shown = [f"<li>{escape(sentence(violation))}</li>" for violation in entry["violations"][:MAX_SHOWN]]
    more = len(entry["violations"]) - len(shown) + entry["more_violations"]
    shown += [f"<li>And {more} more.</li>"] if more else []
    head = f"{escape(moment(entry['time']))}{times}: {by} refused {escape(entry['route'])} with {entry['status']}."
    request = f'<span class="quiet">Request <code>{escape(entry["request_id"])}</code></span>'
    return f"<li>{head} {request}<ul>{''.join(shown)}</ul></li>"


def _limits_table(limits: Iterable[LimitStatus]) -> str:
    rows = "\n".join(_row(limit) for limit in limits)
    head = '<tr><th scope="col">What</th><th scope="col">Limit</th><th scope="col">Left</th></tr>'
    return f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>"


def _row(limit: LimitStatus) -> str:
    name, size = escape(limit_in_words(limit.name)), escape(size_in_words(limit.size))
    left = f"{limit.remaining:,.0f}"
    if limit.total:
        left += f' <meter min="0" max="{limit.total:g}" value="{limit.remaining:g}" aria-label="{name} left"></meter>'
    return f'<tr><th scope="row">{name}</th><td>{size}</td><td>{left}</td></tr>'


def _limit_value(limit: LimitStatus) -> dict[str, Any]:
    return {"name": limit.name, "size": limit.size, "remaining": limit.remaining, "total": limit.total}


def _iso(moment_s: float | None) -> str | None:
    return None if moment_s is None else datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(moment_s: float | None) -> str:
    if moment_s is None:
        return "never"
    return f'<time datetime="{_iso(moment_s)}">{datetime.fromtimestamp(moment_s, UTC).strftime(_WITH_TIME)}</time>'


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
