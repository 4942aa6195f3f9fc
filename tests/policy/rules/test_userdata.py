from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.call import ClientReply, StreamedBody, UpstreamReply
from policy.rule_context import RuleInput
from policy.rules import userdata as rules
from policy.rules.userdata import SETTINGS_FILE
from policy.violation import Reason
from tests.policy.names import HOSTILE
from tests.policy.tenants import caller_of, drive, is_refused, reply_of, request_of

ALICE = caller_of("alice")
MISSING = UpstreamReply(404, None, b"Directory not found", "text/plain")
TOLD_MISSING = ClientReply(404, b"Directory not found", "text/plain")


def ask(query: dict[str, str] | None = None, **parameters: str) -> RuleInput:
    return request_of(ALICE, query=query, parameters=parameters)


def test_there_is_one_user() -> None:
    assert rules.users(ask()) == ClientReply(body={"storage": "server", "migrated": True})


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("comfy.templates.json", "/userdata/tenants%2Falice%2Fcomfy.templates.json"),
        ("workflows/a b.json", "/userdata/tenants%2Falice%2Fworkflows%2Fa%20b.json"),
        ("workflows/.index.json", "/userdata/tenants%2Falice%2Fworkflows%2F.index.json"),
        ("tenants/bob/x.json", "/userdata/tenants%2Falice%2Ftenants%2Fbob%2Fx.json"),
        (f"workflows/{SETTINGS_FILE}", f"/userdata/tenants%2Falice%2Fworkflows%2F{SETTINGS_FILE}"),
        ("user.css", "/userdata/tenants%2Falice%2Fuser.css"),
        ("50% denoise.json", "/userdata/tenants%2Falice%2F50%2525%20denoise.json"),
        ("SD 3.5 - 16:9.json", "/userdata/tenants%2Falice%2FSD%203.5%20-%2016:9.json"),
        ("%2e%2e/x", "/userdata/tenants%2Falice%2F~=%3D252e=252e%2Fx".replace("~=%3D252e=252e", "~==252e=252e")),
        ("tenants/alice/x", "/userdata/tenants%2Falice%2Fx"),
    ],
)
def test_files_lie_in_the_tenants_folder(file: str, target: str) -> None:
    assert rules.read(ask(file=file)).target == target
    assert rules.write(ask(file=file)).target == target
    assert rules.delete(ask(file=file)).target == target
    assert rules.move(ask(file=file, dest="b/c.json")).target == f"{target}/move/tenants%2Falice%2Fb%2Fc.json"
    assert rules.move(ask(file="b/c.json", dest=file)).target.endswith(f"/move/{target.removeprefix('/userdata/')}")


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE,
        *("", ".", "tenants/alice"),
        *(
            SETTINGS_FILE,
            "Comfy.Settings.json",
            "COMFY.SETTINGS.JSON",
            "comfy\uff0esettings.json",
            "comfy.\u017fettings.json",
            f"./{SETTINGS_FILE}",
            f"tenants/alice/{SETTINGS_FILE}",
            f"{SETTINGS_FILE}. ",
            f"{SETTINGS_FILE}::$DATA",
            "comfy.\u200bsettings.json",
        ),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    for rule in (rules.read, rules.write, rules.delete):
        assert is_refused(rule, ask(file=name), reason=Reason.NAME_REFUSED)
    assert is_refused(rules.move, ask(file=name, dest="x"), reason=Reason.NAME_REFUSED)
    assert is_refused(rules.move, ask(file="x", dest=name), reason=Reason.NAME_REFUSED)


def test_methods_and_bodies_stay() -> None:
    assert rules.read(request_of(ALICE, method="HEAD", parameters={"file": "x"})).method == "HEAD"
    written = rules.write(ask(file="x"))
    assert (written.method, written.body, written.content_type) == ("POST", StreamedBody(), "application/octet-stream")
    assert rules.delete(ask(file="x")).method == "DELETE"
    assert rules.move(ask(file="x", dest="y")).method == "POST"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ({}, ""),
        ({"overwrite": "false", "full_info": "true"}, "?overwrite=false&full_info=true"),
        ({"overwrite": "true", "full_info": "TRUE", "x": "y"}, "?full_info=true"),
        ({"overwrite": "False", "full_info": "1"}, ""),
    ],
)
def test_only_known_words_go_on(query: dict[str, str], sent: str) -> None:
    assert rules.write(ask(query, file="x")).target == f"/userdata/tenants%2Falice%2Fx{sent}"
    assert rules.move(ask(query, file="x", dest="y")).target.endswith(f"y{sent}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("tenants/alice/workflows/a.json", "workflows/a.json"),
        ("tenants\\alice\\workflows\\a.json", "workflows/a.json"),
        ("tenants/bob/a.json", None),
        ({"path": "tenants/alice/a.json", "size": 5, "modified": 1, "created": 2, "x": 3}, {"path": "a.json", "size": 5, "modified": 1, "created": 2}),
        ({"path": "tenants/bob/a.json", "size": 5}, None),
        ({"path": 5}, None),
        (None, None),
        ([], None),
    ],
)  # fmt: skip
def test_what_was_saved_is_told_in_the_tenants_names(value: Any, shown: Any) -> None:
    assert rules.saved(value, ask()) == shown


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ({"dir": "workflows"}, "/userdata?dir=tenants/alice/workflows"),
        (
            {"dir": "workflows", "recurse": "true", "split": "false", "full_info": "True"},
            "/userdata?dir=tenants/alice/workflows&recurse=true&full_info=true",
        ),
        ({"dir": ".", "split": "true"}, "/userdata?dir=tenants/alice&split=true"),
        ({"dir": "./"}, "/userdata?dir=tenants/alice"),
        ({"dir": "subgraphs/"}, "/userdata?dir=tenants/alice/subgraphs"),
        ({"dir": "tenants/bob"}, "/userdata?dir=tenants/alice/tenants/bob"),
        ({"dir": "tenants/alice/a"}, "/userdata?dir=tenants/alice/a"),
        ({"dir": "50% off"}, "/userdata?dir=tenants/alice/50%2525%20off"),
    ],
)
def test_a_directory_is_listed_from_the_tenants_folder(query: dict[str, str], target: str) -> None:
    steps, reply = drive(rules.list_directory(ask(query)), reply_of(["a.json", "sub/b.json"]))
    assert [step.target for step in steps] == [target]
    assert reply == ClientReply(body=["a.json", "sub/b.json"])


@pytest.mark.parametrize(
    ("directory", "value", "shown"),
    [
        (".", ["a.json", SETTINGS_FILE, "workflows/b.json"], ["a.json", "workflows/b.json"]),
        (".", [[SETTINGS_FILE, SETTINGS_FILE], ["w/b.json", "w", "b.json"]], [["w/b.json", "w", "b.json"]]),
        (".", [{"path": SETTINGS_FILE, "size": 1}, {"path": "a.json", "size": 2, "x": 3}], [{"path": "a.json", "size": 2}]),
        ("w", [SETTINGS_FILE], [SETTINGS_FILE]),
        ("w", ["~=con", "a:b", "con", "a\uff0fb"], ["con", "a:b", "con", "a\uff0fb"]),
        ("w", [["d/~=con", "d", "~=con"]], [["d/con", "d", "con"]]),
        ("w", ["../bob/x", "/etc/passwd", 5, None, [], [5], {"path": 5}, {}], []),
        ("w", None, []),
        ("w", {"a": 1}, []),
    ],
)  # fmt: skip
def test_entries_that_are_not_the_tenants_are_left_out(directory: str, value: Any, shown: Any) -> None:
    assert drive(rules.list_directory(ask({"dir": directory})), reply_of(value))[1] == ClientReply(body=shown)


def test_a_new_tenants_root_is_empty_and_other_directories_are_missing() -> None:
    assert drive(rules.list_directory(ask({"dir": "."})), MISSING)[1] == ClientReply(body=[])
    unread = replace(TOLD_MISSING, headers=(("Cache-Control", "private, no-cache"),))
    assert drive(rules.list_directory(ask({"dir": "workflows"})), MISSING)[1] == unread
    assert drive(rules.list_tree(ask()), MISSING)[1] == ClientReply(body=[])
    assert drive(rules.list_tree(ask({"path": ""})), MISSING)[1] == ClientReply(body=[])
    assert drive(rules.list_tree(ask({"path": "workflows"})), MISSING)[1] == TOLD_MISSING


def test_a_listing_without_a_directory_is_refused_by_comfyui() -> None:
    refused = UpstreamReply(400, None, b"Directory not provided", "text/plain")
    for query in ({}, {"dir": ""}):
        steps, reply = drive(rules.list_directory(ask(query)), refused)
        assert [step.target for step in steps] == ["/userdata"]
        assert reply == ClientReply(400, b"Directory not provided", "text/plain")
    assert drive(rules.list_directory(ask()), reply_of(["everybody's"]))[1] == ClientReply(body=[])


@pytest.mark.parametrize("name", [*HOSTILE, "../"])
def test_hostile_directories_are_refused(name: str) -> None:
    assert is_refused(rules.list_directory, ask({"dir": name}), reason=Reason.NAME_REFUSED)
    assert is_refused(rules.list_tree, ask({"path": name}), reason=Reason.NAME_REFUSED)


@pytest.mark.parametrize(
    ("query", "target"), [({}, "tenants/alice"), ({"path": "workflows"}, "tenants/alice/workflows")]
)
def test_a_tree_is_listed_with_paths_from_the_tenants_root(query: dict[str, str], target: str) -> None:
    value = [
        {"name": "workflows", "path": "tenants/alice/workflows", "type": "directory"},
        {
            "name": "a.json",
            "path": "tenants/alice/workflows/a.json",
            "type": "file",
            "size": 5,
            "modified": 1.5,
            "x": 1,
        },
        {"name": SETTINGS_FILE, "path": f"tenants/alice/{SETTINGS_FILE}", "type": "file"},
        {"name": "bob", "path": "tenants/bob", "type": "directory"},
        {"name": "alice", "path": "tenants/alice", "type": "directory"},
        {"name": "odd", "path": 5},
        "odd",
    ]
    steps, reply = drive(rules.list_tree(ask(query)), reply_of(value))
    assert [step.target for step in steps] == [f"/v2/userdata?path={target}"]
    assert reply.body == [
        {"name": "workflows", "path": "workflows", "type": "directory"},
        {"name": "a.json", "path": "workflows/a.json", "type": "file", "size": 5, "modified": 1.5},
    ]
    assert drive(rules.list_tree(ask(query)), reply_of("odd"))[1] == ClientReply(body=[])
