"""Fields of a function's form: what each control says of its parameter, and that no text of it is HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from policy.functions.arguments import MAX_SEED, read_argument, read_written
from policy.functions.settings import ParameterSettings
from policy.violation import Violation
from proxy.pages.fields import LONG_TEXT, field

CANARY = "\"><script>alert(1)</script>'&lt;"


class Parsed(HTMLParser):
    """tags: each with its attributes; texts: by the tag in which they stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "input":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "every tag ends where it should"

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        self.texts[tag] = self.texts.get(tag, "") + data

    def one(self, *tags: str) -> dict[str, str | None]:
        (found,) = [attributes for tag, attributes in self.tags if tag in tags]
        return found


def settings(**given: Any) -> ParameterSettings:
    return ParameterSettings(fills=("6.text",), **given)


def control(**given: Any) -> dict[str, str | None]:
    return Parsed(field("size", settings(**given))).one("input", "textarea", "select")


def words(**given: Any) -> str:
    return Parsed(field("size", settings(**given))).texts.get("p", "").strip()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "integer", "min": 16, "max": 512, "default": 32}, {"min": "16", "max": "512", "step": "1", "value": "32"}),
        ({"type": "integer"}, {"step": "1", "required": None, "min": None, "inputmode": None}),
        ({"type": "integer", "min": 0.5}, {"min": "1"}),
        ({"type": "integer", "min": 10, "multiple_of": 8}, {"min": "16", "step": "8"}),
        ({"type": "integer", "min": -10, "multiple_of": 8}, {"min": "-8", "step": "8"}),
        ({"type": "number"}, {"type": "number", "step": "any"}),
        ({"type": "number", "min": 0.05, "max": 1.0, "multiple_of": 0.1}, {"min": "0.1", "step": "0.1", "max": "1.0"}),
        ({"type": "number", "max": 1e30}, {"max": f"{10**30}"}),
        ({"type": "seed"}, {"type": "text", "pattern": "[0-9]*", "placeholder": "random", "maxlength": "20"}),
        ({"type": "seed", "default": MAX_SEED}, {"value": str(MAX_SEED)}),
        ({"type": "boolean", "default": True}, {"type": "checkbox", "checked": None}),
        ({"type": "text", "max_length": LONG_TEXT}, {"type": "text", "maxlength": str(LONG_TEXT), "required": None}),
        ({"type": "text"}, {"rows": "3", "maxlength": "100000"}),
        ({"type": "image"}, {"type": "file", "accept": "image/*", "required": None}),
        ({"type": "mask"}, {"accept": "image/*"}),
        ({"type": "audio"}, {"accept": "audio/*"}),
        ({"type": "video"}, {"accept": "video/*"}),
    ],
)  # fmt: skip
def test_a_control_says_what_its_parameter_takes(given: dict[str, Any], expected: dict[str, str | None]) -> None:
    found = control(**given)
    assert {name: found.get(name, "not there") for name in expected} == {
        name: "not there" if text is None and name not in ("required", "checked") else text
        for name, text in expected.items()
    }


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"type": "text"}, True),
        ({"type": "text", "default": ""}, False),
        ({"type": "integer", "default": 0}, False),
        ({"type": "seed"}, False),
        ({"type": "boolean"}, False),
        ({"type": "choice", "choices": ("a",)}, True),
        ({"type": "image"}, True),
        ({"type": "image", "optional": True}, False),
    ],
)
def test_what_is_needed_is_said(given: dict[str, Any], needed: bool) -> None:
    page = Parsed(field("size", settings(**given)))
    assert ("required" in page.one("input", "textarea", "select")) is needed
    assert ("(needed)" in page.texts.get("span", "")) is needed


def test_bounds_in_words() -> None:
    assert words(type="integer", min=16, max=5120, multiple_of=8) == "From 16 up to 5,120, a multiple of 8."
    assert words(type="number", max=0.5) == "Up to 0.5."
    assert words(type="integer", multiple_of=2) == "A multiple of 2."
    assert words(type="number", min=0.0, description="Of the whole") == "Of the whole. From 0."
    assert words(type="text", max_length=200, description="What is seen!") == "What is seen! At most 200 characters."
    assert words(type="image", optional=True) == "Without one, that of the workflow."
    assert words(type="seed") == "Empty: drawn at random."
    assert words(type="boolean") == words(type="choice", choices=(1,), default=1) == words(type="audio") == ""


def test_every_multiple_that_the_gate_takes_is_one_of_the_controls_steps() -> None:
    """A browser counts steps from `min`, the gate from nothing."""
    parameter = settings(type="integer", min=10, max=60, multiple_of=8)
    found = control(type="integer", min=10, max=60, multiple_of=8)
    steps = range(int(found["min"] or 0), 61, int(found["step"] or 0))
    taken = []
    for number in range(0, 100):
        try:
            taken.append(read_argument("size", parameter, number))
        except Violation:
            continue
    assert list(steps) == taken == [16, 24, 32, 40, 48, 56]


def test_choices_are_sent_as_the_gate_reads_them() -> None:
    choices = ("euler", 2, 0.5, True)
    parameter = settings(type="choice", choices=choices, default=2)
    page = Parsed(field("size", parameter))
    options = [attributes for tag, attributes in page.tags if tag == "option"]
    assert [read_written("size", parameter, option["value"] or "") for option in options] == list(choices)
    assert ["selected" in option for option in options] == [False, True, False, False]
    (placeholder, _) = [
        attributes
        for tag, attributes in Parsed(field("size", settings(type="choice", choices=("a",)))).tags
        if tag == "option"
    ]
    assert placeholder == {"value": "", "selected": None, "disabled": None}


def test_a_text_that_begins_with_a_line_break_stays_as_it_is() -> None:
    assert "\n\n two" in field("size", settings(type="text", default="\n two"))


@pytest.mark.parametrize("kind", ["text", "integer", "boolean", "seed", "image"])
def test_texts_are_no_html(kind: str) -> None:
    more = {"default": CANARY} if kind == "text" else {}
    page = Parsed(field("size", settings(type=kind, title=CANARY, description=CANARY, **more)))
    assert {tag for tag, _ in page.tags} <= {"div", "label", "p", "input", "textarea", "span"}
    assert CANARY in page.texts["label"]
    assert CANARY in page.texts["p"]


def test_choices_and_inputs_are_no_html() -> None:
    parameter = ParameterSettings(type="choice", choices=(CANARY,), default=CANARY, fills=(f'6"><b>.{CANARY}',))
    page = Parsed(field("size", parameter))
    assert {tag for tag, _ in page.tags} == {"div", "label", "p", "select", "option"}
    assert page.texts["option"] == CANARY
    assert page.one("div")["data-fills"] == f'6"><b>.{CANARY}'


def test_a_file_may_stand_elsewhere_where_the_gate_fetches_it() -> None:
    for kind, is_file in (("image", True), ("mask", True), ("text", False)):
        page = Parsed(field("size", settings(type=kind), takes_addresses=True))
        found = [attributes for tag, attributes in page.tags if attributes.get("type") == "url"]
        assert bool(found) is is_file
        assert [each["pattern"] for each in found] == ["https://.*"] * is_file
    assert 'type="url"' not in field("size", settings(type="image"))


def test_every_control_has_its_label_and_its_words() -> None:
    for kind in ("text", "integer", "number", "boolean", "seed", "image", "audio", "video", "mask"):
        page = Parsed(field("size", settings(type=kind)))
        found = page.one("input", "textarea")
        assert page.one("label")["for"] == found["id"]
        places = {attributes.get("id") for tag, attributes in page.tags if tag == "p"}
        assert set((found["aria-describedby"] or "").split()) == places
