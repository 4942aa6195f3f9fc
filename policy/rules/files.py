"""GET /view: one file of the tenant's. What is a neighbour's becomes a name that does not exist, so ComfyUI itself answers."""

from __future__ import annotations

from policy.call import ClientCall, Opaque, UpstreamCall, UpstreamPath, UpstreamText
from policy.namespace import Folder, Namespace, check_file_name, parse_folder, split_annotation, split_path
from policy.rule_context import RuleInput
from policy.violation import Reason, Violation

_CHANNELS = frozenset({"rgb", "rgba", "a"})


def find_file(request: RuleInput) -> tuple[Folder, UpstreamPath]:
    """Which file is asked for, by ComfyUI's folder and the path in it: what the gate may read from disk too.

    ComfyUI takes the file's folder from `subfolder` alone and the suffix " [output]" before `type` (server.py, view_image).
    """
    call = request.call
    filename = call.first("filename")
    if not filename:
        raise Violation(Reason.QUERY_MALFORMED, "Give the name of a file in `filename`.")
    bare, annotated = split_annotation(filename)
    check_file_name(bare)
    folder = annotated or parse_folder(call.first("type"), Folder.OUTPUT)
    subfolder = call.first("subfolder") or ""
    path = f"{subfolder}/{bare}" if subfolder else bare
    context = request.context
    return folder, context.names.readable_to_upstream(path, folder, context.shared_inputs, context.jobs.has_temp_file)


def find_shared(request: RuleInput) -> UpstreamPath | None:
    """A temp file of one of the tenant's jobs, which lies among everybody's; None for what lies in the tenant's own folder."""
    return shared_temp_file(request.context.names, find_file(request))


def shared_temp_file(names: Namespace, found: tuple[Folder, UpstreamPath]) -> UpstreamPath | None:
    folder, path = found
    return path if folder is Folder.TEMP and names.path_to_client(path) is None else None


def view(request: RuleInput) -> UpstreamCall:
    folder, path = find_file(request)
    query: list[tuple[str, UpstreamText]] = []
    preview = request.call.first("preview")
    if preview is not None:
        query.append(("preview", _read_preview(preview)))
    channel = request.call.first("channel")
    if channel in _CHANNELS:
        query.append(("channel", Opaque(channel)))
    return view_of(request.call.method, folder, path, tuple(query))


def view_of(
    method: str, folder: Folder, path: UpstreamPath, more: tuple[tuple[str, UpstreamText], ...] = ()
) -> UpstreamCall:
    """Asks ComfyUI for a file. more: how it is to be shown."""
    where, name = split_path(path)
    query: tuple[tuple[str, UpstreamText], ...] = (
        ("filename", name),
        ("subfolder", where),
        ("type", Opaque(folder.value)),
    )
    return UpstreamCall(method, (Opaque("view"),), query + more, file=(folder.value, path))


def makes_picture(call: ClientCall) -> bool:
    """Whether ComfyUI makes the answer: a preview, or a channel taken out."""
    return call.first("preview") is not None or call.first("channel") in ("rgb", "a")


def find_source(request: RuleInput) -> tuple[Folder, UpstreamPath] | None:
    """The picture that another is made of."""
    return find_file(request) if makes_picture(request.call) else None


def find_plain(request: RuleInput) -> tuple[Folder, UpstreamPath] | None:
    """Where the bytes on the disk are the answer: no preview, and no channel taken out."""
    if makes_picture(request.call):
        return None
    return find_file(request)


def _read_preview(text: str) -> Opaque:
    """`format;quality`, as ComfyUI reads it (server.py, view_image): a format that it does not know is webp, what is no number no quality."""
    first, last = text.partition(";")[0], text.rpartition(";")[2]
    quality = (last.lstrip("0") or "0") if last.isascii() and last.isdigit() else "90"
    if len(quality) > len("100") or int(quality) > 100:
        # Pillow fails on it, or takes it for 100.
        raise Violation(Reason.QUERY_MALFORMED, "The quality in `preview` is a number from 0 to 100: 'webp;80'.")
    return Opaque(f"{first if first == 'jpeg' else 'webp'};{quality}")
