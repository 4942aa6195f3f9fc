"""Results in another form: what a function may say of it, and what a client is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from policy.functions.conversion import QUALITY, Derived, NotDerived, Recipe, misfit, name_of, recipe_of, type_of
from policy.functions.function import Function
from policy.functions.results import call_to_client, find_result, forms_of, pick, results_of
from policy.functions.settings import OutputSettings
from policy.v2.assets import SignedLink
from policy.v2.jobs import JobView
from tests.policy.functions.examples import function
from tests.policy.functions.test_results import LINKS, asset, job

WEBP = Recipe("webp", 80)
MADE = job(asset("2", "a.png"), asset("3", "b.png"), asset("2", "c.webm", "video/webm"))


def converting(**outputs: dict[str, Any]) -> Function:
    return function(outputs=outputs or {"result": {"node": "2", "convert": "webp"}})


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        ({"convert": "gif"}, "Input should be 'png', 'jpeg', 'webp' or 'avif'"),
        ({"convert": "webp", "quality": 0}, "greater than or equal to 1"),
        ({"convert": "webp", "quality": 101}, "less than or equal to 100"),
        ({"convert": "webp", "quality": "80"}, "valid integer"),
        ({"convert": "png", "quality": 80}, "quality is for convert"),
        ({"quality": 80}, "quality is for convert"),
        ({"strip": 1}, "valid boolean"),
    ],
)
def test_what_an_output_cannot_say(output: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        OutputSettings.model_validate({"node": "2", **output})


@pytest.mark.parametrize(
    ("output", "recipe"),
    [
        ({}, None),
        ({"convert": "png"}, Recipe("png")),
        ({"convert": "jpeg"}, Recipe("jpeg", QUALITY)),
        ({"convert": "avif", "quality": 1}, Recipe("avif", 1)),
        ({"strip": True}, Recipe()),
        ({"strip": True, "convert": "webp"}, Recipe("webp", QUALITY)),
    ],
)
def test_what_becomes_of_it(output: dict[str, Any], recipe: Recipe | None) -> None:
    assert recipe_of(OutputSettings.model_validate({"node": "2", **output}), asset("2", "a.png")) == recipe


def test_another_quality_is_another_file() -> None:
    recipes = (Recipe("webp", 1), Recipe("webp", 2), Recipe("jpeg", 1), Recipe("png"), Recipe())
    assert len({recipe.mark for recipe in recipes}) == 5
    assert tuple(Recipe.from_mark(recipe.mark) for recipe in recipes) == recipes
    assert converting().formats == {"webp"}
    assert function().formats == frozenset()


def test_what_was_stripped_of_less_is_given_no_more() -> None:
    """Files that are kept, and copies of them, are found by the mark."""
    assert Recipe.from_mark("-0") == Recipe()
    assert not Recipe.is_given("-0")
    assert all(Recipe.is_given(recipe.mark) for recipe in (Recipe(), Recipe("png"), Recipe("webp", 80)))


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.png", "a.webp"), ("a.b.png", "a.b.webp"), ("a", "a.webp"), (".png", ".png.webp")],
)
def test_its_name_and_type(name: str, told: str) -> None:
    picture = asset("2", name)
    assert (name_of(picture, WEBP), type_of(picture, WEBP)) == (told, "image/webp")
    assert (name_of(picture, None), type_of(picture, None)) == (name, "image/png")


@pytest.mark.parametrize("content_type", ["video/mp4", "audio/flac", "text/plain; charset=utf-8"])
def test_what_is_no_picture_is_told_as_it_is(content_type: str) -> None:
    other = asset("2", "a.mp4", content_type)
    assert misfit(other, WEBP).startswith("This output is no picture (")
    assert (name_of(other, WEBP), type_of(other, WEBP)) == ("a.mp4", content_type)
    assert misfit(asset("2", "a.png"), WEBP) == ""


def test_the_answer_tells_of_the_file_that_is_given() -> None:
    results = results_of(MADE, converting())
    link = SignedLink("https://bucket.example.com/a.webp", 10.0)
    results = (
        replace(results[0], made=Derived(5, "blake3:x", link)),
        replace(results[1], made=NotDerived("It is no picture.")),
    )
    first, second = call_to_client(MADE, results, LINKS)["outputs"]
    told = ("name", "content_type", "size_bytes", "hash", "error", "id")
    assert [first[key] for key in told] == ["a.webp", "image/webp", 5, "blake3:x", None, "id-a.png"]
    assert first["link"] == {"url": "https://bucket.example.com/a.webp", "expires_at": "1970-01-01T00:00:10.000Z"}
    assert "link" not in second
    assert [second[key] for key in told] == ["c.webm", "video/webm", 0, None, "It is no picture.", "id-c.webm"]


def test_the_link_of_the_original_is_not_told_of_its_form() -> None:
    linked = job(replace(asset("2", "a.png"), link=SignedLink("https://bucket.example.com/a.png", 10.0)))
    for made in (NotDerived(), Derived(5, "blake3:x")):
        [result] = results_of(linked, converting())
        assert replace(result, made=made).given.link is None


def test_the_forms_of_a_job_are_each_told_once_and_only_those_that_can_be() -> None:
    outputs: dict[str, Any] = {name: {"node": "2", "convert": "webp"} for name in ("one", "same")}
    outputs |= {"other": {"node": "2", "convert": "webp", "quality": 40}, "full": {"node": "2"}}
    found = forms_of(MADE, converting(**outputs))
    assert [(made.file_path, recipe) for made, recipe in found] == [("a.png", WEBP), ("a.png", Recipe("webp", 40))]
    assert forms_of(MADE, None) == ()


def test_what_is_not_made_yet_is_told_without_its_size() -> None:
    shown = call_to_client(MADE, results_of(MADE, converting()), LINKS)["outputs"][0]
    assert (shown["name"], shown["size_bytes"], shown["hash"], shown["error"]) == ("a.webp", 0, None, None)
    plain = call_to_client(MADE, results_of(MADE, function()), LINKS)["outputs"][0]
    assert (plain["name"], plain["size_bytes"], plain["error"]) == ("a.png", 3, None)


def test_a_file_in_two_forms() -> None:
    both = converting(full={"node": "2"}, small={"node": "2", "convert": "webp", "quality": 40})
    one = job(asset("2", "a.png"), asset("2", "b.png"))
    found = results_of(one, both)
    assert [(each.output, each.index, each.file_name) for each in found] == [
        ("full", 0, "a.png"),
        ("small", 0, "a.webp"),
        ("full", 1, "b.png"),
        ("small", 1, "b.webp"),
    ]
    single = job(asset("2", "a.png"))
    assert pick(single, both, ("image/webp",), LINKS).output == "small"
    assert pick(single, both, ("image/png",), LINKS).output == "full"


@pytest.mark.parametrize("name", ["result", "2", "a.png", "a.webp"])
def test_however_it_is_asked_for_it_is_in_its_form(name: str) -> None:
    found = find_result(MADE, converting(), name, 0)
    assert (found.asset.file_path, found.recipe) == ("a.png", WEBP)


def test_what_the_function_does_not_name_is_as_it_is() -> None:
    for view, name in ((MADE, "3"), (MADE, "b.png")):
        assert find_result(view, converting(), name, 0).recipe is None
    without: JobView = MADE
    assert find_result(without, None, "2", 0).recipe is None


def test_a_type_is_picked_by_what_is_given() -> None:
    assert pick(MADE, converting(), ("image/webp",), LINKS).asset.file_path == "a.png"
    assert pick(MADE, converting(), ("image/*",), LINKS).file_name == "a.webp"


@pytest.mark.parametrize("content_type", ["image/png", "video/mp4", "application/octet-stream"])
def test_without_its_workflow_it_is_the_same_kind_of_file(content_type: str) -> None:
    file = asset("2", "a.xyz", content_type)
    assert (name_of(file, Recipe()), type_of(file, Recipe())) == ("a.xyz", content_type)
    assert misfit(file, Recipe()) == ""
    assert (Recipe().words, WEBP.words) == ("without its workflow", "as webp")


def test_a_text_that_a_node_shows_has_no_workflow() -> None:
    strips = OutputSettings(node="2", strip=True)
    assert recipe_of(strips, replace(asset("2", "2_0.txt", "text/plain"), folder=None)) is None
    assert converting(result={"node": "2", "strip": True}).formats == frozenset()
