"""What a ComfyUI must have to run a job, and what of the job's workflow depends on which one runs it. Kept of jobs where there are several."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from policy.call import UpstreamPath
from policy.namespace import Folder


class Needs(NamedTuple):
    """classes: of its nodes. choices: class, input and value, of inputs whose values are listed. models: values among them that name files of models.

    labels: that it must have. files: folder and path of the files of its tenant's (or shared ones) that it reads. prefixes: node and input, of those that
    say what the names of saved files begin with. folders: the same, of those that say in which folder they are saved. first_only: class and input, of those
    that read or write what only the first ComfyUI has: folders of data sets, and bytes that were put under an id. shapes: of classes that differ between
    ComfyUIs: the inputs that a node of it has, and policy.merging.shape_of for these, each once; None for all inputs where there would be very many.
    """

    classes: tuple[str, ...] = ()
    choices: tuple[tuple[str, str, str], ...] = ()
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    files: tuple[tuple[Folder, UpstreamPath], ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    first_only: tuple[tuple[str, str], ...] = ()
    shapes: tuple[tuple[str, tuple[str, ...] | None, str], ...] = ()

    def to_bytes(self) -> bytes:
        return orjson.dumps(tuple(self))


NO_NEEDS: Final = Needs()


def read_needs(body: bytes) -> Needs:
    """What `Needs.to_bytes` wrote."""
    classes, choices, models, labels, files, prefixes, folders, first_only, shapes = orjson.loads(body)
    return Needs(
        tuple(classes),
        tuple(tuple(choice) for choice in choices),
        tuple(models),
        tuple(labels),
        tuple((Folder(folder), path) for folder, path in files),
        tuple(tuple(prefix) for prefix in prefixes),
        tuple(tuple(folder) for folder in folders),
        tuple(tuple(each) for each in first_only),
        tuple((name, None if given is None else tuple(given), shape) for name, given, shape in shapes),
    )
