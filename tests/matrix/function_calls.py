"""How the rows of functions and their jobs are called. Both tenants may call `wear` (world.py)."""

from __future__ import annotations

from tests.matrix.calls import Call, Entry, ids_of, of_each_job, plain

CALLS: dict[str, Entry] = {
    "GET /gate/functions": plain("/gate/functions"),
    "GET /gate/functions/{name}": Entry(
        lambda things: [Call("/gate/functions/wear"), Call(f"/gate/functions/{things.folder}")], (200, 404)
    ),
    "GET /gate/docs": plain("/gate/docs"),
    "GET /gate/openapi.json": plain("/gate/openapi.json"),
    "GET /gate/run": plain("/gate/run"),
    "GET /gate/run/{name}": Entry(
        lambda things: [Call("/gate/run/wear"), Call(f"/gate/run/{things.folder}")], (200, 404)
    ),
    "POST /gate/run/{name}": Entry(
        lambda things: [
            Call("/gate/run/wear", {"picture": things.asset}),
            Call(f"/gate/run/{things.folder}", {"picture": things.asset}),
        ],
        (202, 404),
        changes=True,
    ),
    "GET /gate/jobs/{job_id}": Entry(
        lambda things: [
            *of_each_job("/gate/jobs/{id}")(things),
            Call(f"/gate/jobs/{things.finished}?inline=1000000"),
        ],
        (200, 200, 200, 200),
        shows=ids_of,
    ),
    "GET /gate/jobs/{job_id}/events": Entry(lambda things: [Call(f"/gate/jobs/{things.finished}/events")]),
    "POST /gate/jobs/{job_id}/cancel": Entry(
        lambda things: [Call(f"/gate/jobs/{each}/cancel") for each in (things.finished, things.running)],
        (404, 200),  # the first was deleted from the history just before
        changes=True,
    ),
    "GET /gate/jobs/{job_id}/outputs/{name}": Entry(
        lambda things: [Call(f"/gate/jobs/{things.finished}/outputs/{name}") for name in ("2", things.output, "3")],
        (200, 200, 200),
    ),
}
