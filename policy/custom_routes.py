"""What an operator, or a pack file that comes with the gate, says of a route of a custom node. policy/route_kinds.py makes rows of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from policy.path_patterns import API, Pattern, is_rest, parse_pattern, spellings
from policy.sizes import Size


class Kind(StrEnum):
    """What a route does, and so what the gate has to do about it."""

    STATIC = "static"
    """A file that is nobody's: the same for all."""
    SHARED_READ = "shared-read"
    """Facts about what all share, as models: without the server's paths."""
    OWN_FILE = "own-file"
    """A file named by `filename`, `subfolder` and `type`, as `/view` names it."""
    OWN_ID = "own-id"
    """Bytes under an id that the client chose, which a node then reads."""
    OWN_JOB = "own-job"
    """An answer to a node that waits for a person."""
    ADMIN = "admin"
    """For admins alone."""
    NEVER = "never"
    """For nobody."""


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_GET: Final = frozenset({"GET"})
_METHODS_OF: Final = {
    Kind.STATIC: _GET,
    Kind.SHARED_READ: _GET,
    Kind.OWN_FILE: _GET,
    Kind.OWN_ID: frozenset({"GET", "PUT"}),
    Kind.OWN_JOB: frozenset({"POST"}),
    Kind.ADMIN: frozenset(METHODS),
    Kind.NEVER: frozenset(METHODS),
}
# Which settings mean something for which kinds.
_ONLY_OF: Final = {
    "query": (Kind.STATIC,),
    "heavy": (Kind.SHARED_READ, Kind.OWN_FILE),
    "suffixes": (Kind.SHARED_READ,),
    "refuse": (Kind.OWN_FILE,),
    "inputs": (Kind.OWN_ID,),
    "max_bytes": (Kind.OWN_ID, Kind.OWN_JOB),
    "classes": (Kind.OWN_JOB,),
    "node": (Kind.OWN_JOB,),
    "body": (Kind.OWN_JOB,),
    "document": (Kind.OWN_JOB,),
    "absent": (Kind.OWN_JOB,),
    "cancel": (Kind.OWN_JOB,),
    "unsent": (Kind.OWN_JOB,),
    "instead": (Kind.NEVER,),
}
MAX_NOTE_LENGTH: Final = 200


def _check_path(path: str) -> str:
    parse_pattern(path)
    return path


def _check_method(method: object) -> object:
    if method == "HEAD":
        raise ValueError("HEAD comes with GET")
    if isinstance(method, str) and method not in METHODS and method.upper() in METHODS:
        raise ValueError(f'methods are written in capitals: "{method.upper()}"')
    return method


def _check_input(text: str) -> str:
    class_name, dot, name = text.rpartition(".")
    if not (class_name and dot and name):
        raise ValueError(f'{text!r} is no input of a class: write "LoadFromCache.id"')
    return text


Method = Annotated[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], BeforeValidator(_check_method)]


class RouteSettings(BaseModel):
    """`[[routes]]`, and each row of a pack file. A setting that means nothing for the kind is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    path: Annotated[str, AfterValidator(_check_path)]
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    kind: Kind
    note: Annotated[str, Field(max_length=MAX_NOTE_LENGTH)] = ""
    doubled: bool = True
    query: tuple[str, ...] = ()
    heavy: bool = False
    suffixes: tuple[str, ...] = ()
    refuse: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    inputs: tuple[Annotated[str, AfterValidator(_check_input)], ...] = ()
    max_bytes: Annotated[Size, Field(ge=1)] = 32 * 1024**2
    classes: tuple[str, ...] = ()
    node: str = ""
    body: Literal["json", "form"] = "json"
    document: str = ""
    absent: tuple[str, ...] = ()
    cancel: dict[str, str] = Field(default_factory=dict)
    unsent: dict[str, str] = Field(default_factory=dict)
    instead: Literal["", "[]", "{}"] = ""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> RouteSettings:
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("a method is named twice")
        permitted = _METHODS_OF[self.kind]
        wrong = [method for method in self.methods if method not in permitted]
        if wrong:
            raise ValueError(f"a route of kind {self.kind} has {_either(sorted(permitted))}, not {wrong[0]}")
        for name, kinds in _ONLY_OF.items():
            if name in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{name} is for routes of kind {_either(list(kinds))}")
        if self.kind is Kind.OWN_ID and not (
            self.inputs and len(self.parameters) == 1 and not is_rest(self.pattern[-1])
        ):
            raise ValueError('an own-id route has one {id}, and inputs that name it, as inputs = ["LoadFromCache.id"]')
        if self.kind is Kind.OWN_JOB and not self.classes:
            raise ValueError('an own-job route names the classes of the nodes that wait, as classes = ["Chooser"]')
        if self.document and self.body != "form":
            raise ValueError('document names the field of a form that holds JSON: body = "form"')
        return self

    @property
    def pattern(self) -> Pattern:
        return parse_pattern(self.path)

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(segment for segment in self.pattern if segment.startswith("{"))

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """As ComfyUI serves it."""
        return spellings(self.pattern, is_doubled=self.doubled)

    @property
    def first(self) -> str:
        """The first segment, without /api: whose the route is."""
        return self.pattern[1] if self.pattern[0] == API else self.pattern[0]


def _either(words: list[str] | list[Kind]) -> str:
    return " or ".join(str(word) for word in words)


class PackSettings(BaseModel):
    """One file of policy/packs. folders: how the pack's folder below custom_nodes is called, whose scripts `/extensions` lists."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    title: str
    repository: str
    folders: tuple[str, ...]
    note: str = ""
    routes: tuple[RouteSettings, ...]
