"""How a path is held against the template of a route: `/gate/jobs/{job_id}`."""

from __future__ import annotations


def key_of(segments: tuple[str, ...]) -> tuple[str, ...]:
    """What patterns are found by: the first segment, and behind /api the second. No pattern has a parameter there."""
    return segments[:2] if segments[0] == "api" else segments[:1]


def prefix_segments(prefix: str) -> tuple[str, ...]:
    return tuple(part for part in prefix.split("/") if part)


def bind(
    pattern: tuple[str, ...], segments: tuple[str, ...], may_contain_slash: frozenset[str]
) -> dict[str, str] | None:
    """The parameters of a path, by name; None where it is not of this pattern. may_contain_slash: names of those that may hold an encoded "/"."""
    parameters: dict[str, str] = {}
    for index, part in enumerate(pattern):
        if part.endswith("...}"):
            rest = segments[index:]
            if not rest or any("/" in segment for segment in rest):
                return None
            parameters[part[1:-4]] = "/".join(rest)
            return parameters
        if index >= len(segments):
            return None
        if part.startswith("{"):
            name = part[1:-1]
            if "/" in segments[index] and name not in may_contain_slash:
                return None
            parameters[name] = segments[index]
        elif part != segments[index]:
            return None
    return parameters if len(pattern) == len(segments) else None
