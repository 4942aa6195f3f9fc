"""The document of a tenant's functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from policy.call import ClientCall
from policy.functions.function import CallableFunction, Function
from policy.idempotency import parse_key
from policy.openapi.choice import read_api, version_of
from policy.openapi.document import openapi_document, v2_document
from policy.openapi.parts import REPLAYED_KEY
from policy.openapi.refusals import CALLS, NAMED, Refusals
from policy.table import FUNCTIONS, V2
from policy.v2.links import Links
from policy.violation import Violation
from policy.webhooks import ENDS
from tests.policy.functions.examples import PARAMETERS, function

HERE = Links("https://comfy.example.com", "/art")


def document_of(*functions: Function) -> dict[str, Any]:
    # The document says nothing of policies.
    return openapi_document({each.name: CallableFunction(each, None) for each in functions}, HERE)  # type: ignore[arg-type]


def found(document: Any, key: str) -> Iterator[Any]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from found(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from found(value, key)


def test_each_function_is_an_operation() -> None:
    document = document_of(function("wear", title="Wear it", description="Puts it on."), function("other"))
    paths = document["paths"]
    assert {path for path in paths if path.startswith("/gate/run/")} == {"/gate/run/wear", "/gate/run/other"}
    wear = paths["/gate/run/wear"]["post"]
    assert wear["summary"] == "Wear it"
    assert wear["description"].startswith("Puts it on.\n\nIt gives `result`.")
    assert document["servers"] == [{"url": "https://comfy.example.com/art"}]
    names = [
        operation["operationId"] for path in paths.values() for operation in path.values() if "operationId" in operation
    ]
    assert len(set(names)) == len(names)


def test_every_row_of_functions_is_told() -> None:
    document = document_of(function("wear"))
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    rows = {route.name.replace("/gate/run/{name}", "/gate/run/wear") for route in FUNCTIONS}
    assert rows - told == {"GET /gate/docs"}, "the page is for people"


def test_references_lead_somewhere() -> None:
    document = document_of(function("wear"), function("other", outputs={}))
    references = set(found(document, "$ref"))
    assert references
    for reference in references:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    operations = {
        each.get("operationId")
        for path in document["paths"].values()
        for each in path.values()
        if isinstance(each, dict)
    }
    assert set(found(document, "operationId")) <= operations, "links too"


def test_who_a_call_names_is_told_as_a_callback() -> None:
    document = document_of(function("wear"))
    reference = document["paths"]["/gate/run/wear"]["post"]["callbacks"]["job_ended"]["$ref"]
    assert reference == "#/components/callbacks/job_ended"
    [(address, callback)] = document["components"]["callbacks"]["job_ended"].items()
    assert address == "{$request.header.Webhook-URL}"
    assert {each["name"] for each in callback["post"]["parameters"]} >= {"webhook-id", "webhook-signature"}
    assert document["components"]["schemas"]["JobEnded"]["properties"]["type"]["enum"] == [str(each) for each in ENDS]
    assert "callbacks" not in v2_document(HERE, takes_workflows=True)["components"]


def test_arguments_as_json_and_as_a_form() -> None:
    body = document_of(function("wear"))["paths"]["/gate/run/wear"]["post"]["requestBody"]
    document = document_of(function("wear"))
    schema = document["components"]["schemas"]["arguments_of_wear"]
    assert set(schema["properties"]) == set(PARAMETERS)
    assert schema["required"] == ["picture"]
    assert body["required"]
    # What may be left out may be null.
    assert {"type": "null"} in schema["properties"]["size"]["anyOf"]
    assert schema["properties"]["picture"]["type"] == "string"
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["picture"]["format"] == "binary"
    assert form["properties"]["size"]["multipleOf"] == 8
    example = body["content"]["application/json"]["example"]
    assert example["picture"].startswith("data:image/png;base64,")
    assert example["size"] == 64
    heard = function("hear", parameters={"sound": {"type": "audio", "title": "Sound", "fills": ["1.image"]}})
    operation = document_of(heard)["paths"]["/gate/run/hear"]["post"]
    content = operation["requestBody"]["content"]
    assert re.fullmatch(r"[0-9a-f-]{36}", content["application/json"]["example"]["sound"])
    assert content["multipart/form-data"]["schema"]["properties"]["sound"]["title"] == "Sound"


def test_outputs_have_the_functions_names() -> None:
    titled = function("wear", outputs={"result": {"node": "2", "title": "It"}, "more": {"node": "3"}})
    operation = document_of(titled)["paths"]["/gate/run/wear"]["post"]
    assert "`result` (It), `more`" in operation["description"]
    narrowed = operation["responses"]["202"]["content"]["application/json"]["schema"]["allOf"][1]
    assert narrowed["properties"]["outputs"]["items"]["properties"]["output"]["enum"] == ["result", "more"]
    plain = document_of(function("wear", outputs={}))["paths"]["/gate/run/wear"]["post"]
    assert plain["responses"]["202"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/CalledJob"
    }


def test_versions_change_with_a_function_and_not_with_their_order() -> None:
    wear, other = function("wear"), function("other")
    first = {each.name: CallableFunction(each, None) for each in (wear, other)}  # type: ignore[arg-type]
    second = {each.name: CallableFunction(each, None) for each in (other, wear)}  # type: ignore[arg-type]
    changed = first | {"wear": CallableFunction(function("wear", title="New"), None)}  # type: ignore[arg-type]
    assert version_of(first) == version_of(second) != version_of(changed)


def test_refusals_of_one_status_stand_together() -> None:
    both = Refusals({404: ("a",), 400: ()}) | Refusals({404: ("b", "a"), 400: ("c",), 500: ("d",)})
    assert both.types == {404: ("a", "b"), 400: (), 500: ("d",)}
    assert list(both.responses()) == ["400", "404", "500"]
    assert (CALLS | NAMED).types == CALLS.types


def test_every_row_of_the_api_v2_is_told() -> None:
    document = v2_document(HERE, takes_workflows=True)
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert {route.name for route in V2} == told - {f"PARAMETERS {path}" for path in document["paths"]}
    assert set(found(document, "$ref"))
    for reference in set(found(document, "$ref")):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_refusals_of_the_api_v2_are_in_its_words() -> None:
    document = v2_document(HERE, takes_workflows=False)
    refused = document["components"]["responses"].values()
    codes = {code for each in refused for code in next(found(each, "enum"))}
    assert {"unauthorized", "job_not_found", "upstream_error"} <= codes
    assert "post" not in document["paths"]["/api/v2/jobs"]


@pytest.mark.parametrize("query", [{}, {"api": "functions"}, {"api": "v2"}])
def test_which_document_is_asked_for(query: dict[str, str]) -> None:
    assert read_api(ClientCall("GET", (), tuple(query.items()))) == query.get("api", "functions")


def test_there_are_no_other_documents() -> None:
    with pytest.raises(Violation, match="functions, v2"):
        read_api(ClientCall("GET", (), (("api", "v3"),)))


@pytest.mark.parametrize(
    "text", ["a", "order 7", '"a b"', '"a\\"b"', '"a";x', '"a', "", '""', "a" * 255, "a" * 256, f'"{"a" * 256}"', "ä"]
)
def test_a_key_is_documented_as_it_is_read(text: str) -> None:
    try:
        parse_key([text])
        is_read = True
    except Violation:
        is_read = False
    schema: Any = REPLAYED_KEY["schema"]
    assert (re.search(schema["pattern"], text) is not None) == is_read
