from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import (
    MAX_CLIENT_MESSAGE_LENGTH,
    MAX_METADATA_BYTES,
    EventRules,
    status_frame,
    to_upstream,
)
from tests.policy.tenants import Jobs, uuid_of

OWN, FOREIGN = uuid_of(1), uuid_of(2)
JOBS = Jobs(active=[OWN], waiting=[uuid_of(3)])


def frame_of(kind: str, data: Any) -> str:
    """As aiohttp's send_json writes it."""
    return json.dumps({"type": kind, "data": data})


def rules(is_running: bool = False) -> EventRules:
    made = EventRules(Namespace(TenantId("alice")), "tab")
    made.is_running = is_running
    return made


def shown(made: EventRules, kind: str, data: Any) -> Any:
    event = made.text(frame_of(kind, data), JOBS)
    return None if event is None else json.loads(event.text)["data"]


def binary(kind: int, payload: bytes) -> bytes:
    return kind.to_bytes(4, "big") + payload


def with_metadata(metadata: Any) -> bytes:
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return binary(4, len(text).to_bytes(4, "big") + text + b"\xff\xd8image")


PLAIN = [
    ("execution_start", {"prompt_id": OWN, "timestamp": 1}),
    ("execution_cached", {"nodes": ["1"], "prompt_id": OWN, "timestamp": 1}),
    ("progress_state", {"prompt_id": OWN, "nodes": {"1": {"value": 0.0, "prompt_id": OWN, "node_id": "1"}}}),
    ("executing", {"node": "1", "display_node": "1", "prompt_id": OWN}),
    ("executing", {"node": None, "prompt_id": OWN}),
    ("progress", {"value": 1, "max": 2, "prompt_id": OWN, "node": "5"}),
    ("execution_success", {"prompt_id": OWN, "timestamp": 1}),
    ("execution_interrupted", {"prompt_id": OWN, "node_id": "1", "node_type": "KSampler", "executed": []}),
]


@pytest.mark.parametrize(("kind", "data"), PLAIN)
def test_events_without_names_pass_as_they_are(kind: str, data: Any) -> None:
    frame = frame_of(kind, data)
    event = rules().text(frame, JOBS)
    assert event is not None
    assert event.text is frame
    assert (event.kind, event.prompt_id) == (kind, OWN)


@pytest.mark.parametrize(
    ("kind", "data"),
    [*PLAIN, ("executed", {"prompt_id": OWN}), ("execution_error", {"prompt_id": OWN}), ("x", {"prompt_id": OWN})],
)
@pytest.mark.parametrize("prompt_id", [FOREIGN, "", "nonsense", 5, ["x"], {}])
def test_foreign_events_are_dropped(kind: str, data: Any, prompt_id: Any) -> None:
    assert rules(is_running=True).text(frame_of(kind, data | {"prompt_id": prompt_id}), JOBS) is None


def test_progress_that_begins_like_the_last_is_of_the_same_job_while_that_is_ones_own() -> None:
    made, other = rules(), uuid_of(3)
    for prompt_id, value in ((OWN, 1), (OWN, 2), (other, 3), (other, 4), (OWN, 5)):
        frame = frame_of("progress_state", {"prompt_id": prompt_id, "nodes": {"1": {"value": value}}})
        event = made.text(frame, JOBS)
        assert event is not None
        assert (event.text, event.kind, event.prompt_id, event.data) == (frame, "progress_state", prompt_id, {})
        assert made.text(frame.replace(prompt_id, FOREIGN), JOBS) is None
        assert made.text(frame, Jobs(active=[FOREIGN])) is None
    longer = frame_of("progress_state", {"prompt_id": OWN + "0", "nodes": {}})
    assert made.text(longer, JOBS) is None


def test_a_node_cannot_speak_for_another_job() -> None:
    node_id = f'1", "prompt_id": "{OWN}'
    assert rules().text(frame_of("executing", {"node": node_id, "prompt_id": FOREIGN}), JOBS) is None
    assert rules().text(frame_of("execution_cached", {"nodes": [node_id], "prompt_id": FOREIGN}), JOBS) is None


@pytest.mark.parametrize("queue_remaining", [0, 1, 99])
def test_a_status_tells_the_tenants_own_count(queue_remaining: int) -> None:
    data = {"status": {"exec_info": {"queue_remaining": queue_remaining}}}
    own = {"status": {"exec_info": {"queue_remaining": 2}}}
    assert shown(rules(), "status", data) == own
    assert shown(rules(), "status", data | {"sid": "alice.tab"}) == own | {"sid": "tab"}
    assert json.loads(status_frame(JOBS)) == {"type": "status", "data": own}
    assert json.loads(status_frame(JOBS, "tab"))["data"] == own | {"sid": "tab"}


def test_outputs_are_in_the_tenants_names() -> None:
    item = {"filename": "x_00001_.png", "subfolder": "tenants/alice/a", "type": "output"}
    foreign = item | {"subfolder": "tenants/bob"}
    data = {"node": "9", "display_node": "9", "output": {"images": [item, foreign]}, "prompt_id": OWN}
    expected = data | {"output": {"images": [item | {"subfolder": "a"}]}}
    assert shown(rules(), "executed", data) == expected


def test_errors_are_scrubbed() -> None:
    data = {
        "prompt_id": OWN,
        "node_id": "1",
        "exception_message": "at /opt/comfy/x.py",
        "traceback": ["tenants/alice/x.png"],
    }
    assert shown(rules(True), "execution_error", data) == data | {
        "exception_message": "at x.py",
        "traceback": ["x.png"],
    }


@pytest.mark.parametrize("kind", ["logs", "assets.seed.started", "assets"])
def test_what_tells_of_the_server_is_dropped(kind: str) -> None:
    assert rules(is_running=True).text(frame_of(kind, {"entries": []}), JOBS) is None


def test_features_are_without_what_tenants_lack() -> None:
    data = {"supports_preview_metadata": True, "assets": True, "extension": {"manager": {}}}
    assert shown(rules(), "feature_flags", data) == {"supports_preview_metadata": True, "assets": False}


def test_events_without_an_id_pass_only_while_an_own_job_runs() -> None:
    data = {"node": "1", "value": "tenants/alice/x.png"}
    assert shown(rules(is_running=True), "custom", data) == {"node": "1", "value": "x.png"}
    assert shown(rules(), "custom", data) is None


@pytest.mark.parametrize(
    "frame",
    ["", "nonsense", "[]", "5", '{"type": 5, "data": {}}', '{"type": "status"}', '{"type": "x", "data": []}', "{"],
)
def test_frames_that_are_not_understood_are_dropped(frame: str) -> None:
    assert rules(is_running=True).text(frame, JOBS) is None


@pytest.mark.parametrize(
    ("kind", "data", "before", "after"),
    [
        ("execution_start", {"prompt_id": OWN}, False, True),
        ("execution_start", {"prompt_id": FOREIGN}, False, False),
        ("executing", {"node": "1", "prompt_id": OWN}, False, True),
        ("executing", {"node": "5"}, False, True),
        ("executing", {"node": None}, False, False),
        ("executing", {"node": None, "prompt_id": OWN}, True, False),
        ("executing", {"node": None, "prompt_id": FOREIGN}, True, True),
        ("progress", {"prompt_id": OWN}, False, False),
        ("execution_success", {"prompt_id": OWN}, True, False),
        ("execution_interrupted", {"prompt_id": OWN}, True, False),
        ("execution_error", {"prompt_id": OWN}, True, False),
        ("executed", {"prompt_id": OWN, "node": "1"}, True, True),
    ],
)
def test_the_running_job_is_followed(kind: str, data: Any, before: bool, after: bool) -> None:
    made = rules(before)
    made.text(frame_of(kind, data), JOBS)
    assert made.is_running is after


def test_other_spellings_of_json_are_understood_too() -> None:
    made = rules()
    frame = json.dumps({"data": {"prompt_id": OWN, "node": "1"}, "type": "executing"}, separators=(",", ":"))
    event = made.text(frame, JOBS)
    assert event is not None
    assert json.loads(event.text)["data"] == {"prompt_id": OWN, "node": "1"}
    assert made.is_running
    foreign = json.dumps({"type": "executing", "data": {"prompt_id": FOREIGN, "node": "1"}}, separators=(",", ":"))
    assert made.text(foreign, JOBS) is None


@pytest.mark.parametrize("frame", [binary(1, b"\0\0\0\x01\xff\xd8"), binary(3, b"\0\0\0\x016progress:ta")])
def test_previews_and_texts_without_an_id_pass_while_an_own_job_runs(frame: bytes) -> None:
    assert rules(is_running=True).binary(frame, JOBS) == frame
    assert rules().binary(frame, JOBS) is None


def test_texts_lose_the_root() -> None:
    frame = binary(3, b"\0\0\0\x016file tenants/alice/x.glb")
    assert rules(is_running=True).binary(frame, JOBS) == binary(3, b"\0\0\0\x016file x.glb")


def test_a_preview_with_metadata_names_its_job() -> None:
    own = with_metadata({"prompt_id": OWN, "image_type": "image/jpeg"})
    assert rules().binary(own, JOBS) is own
    assert rules(is_running=True).binary(with_metadata({"prompt_id": FOREIGN}), JOBS) is None


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\x00",
        binary(0, b"x"),
        binary(2, b"x"),
        binary(5, b"x"),
        binary(16777216, b"x"),
        binary(3, b"\x00\x00\x00\tshort"),
        with_metadata(b"nonsense"),
        with_metadata([]),
        with_metadata({}),
        with_metadata({"prompt_id": 5}),
        with_metadata({"prompt_id": None}),
        binary(4, b"\xff\xff\xff\xff{}"),
        binary(4, b"\x00\x00\x00 {}"),
        binary(4, (MAX_METADATA_BYTES + 1).to_bytes(4, "big")),
    ],
)
def test_frames_of_other_kinds_are_dropped(frame: bytes) -> None:
    assert rules(is_running=True).binary(frame, JOBS) is None


def test_an_event_says_once_what_it_is_of() -> None:
    """Whatever stands before the job's own id: an output may hold what a client wrote."""
    data = {"node": "9", "output": {"result": ["", {"prompt_id": FOREIGN}]}, "prompt_id": OWN}
    event = rules().text(frame_of("executed", data), JOBS)
    assert event is not None
    assert (event.kind, event.prompt_id, event.data) == ("executed", OWN, data)


def test_a_client_may_tell_its_features() -> None:
    data = {
        "supports_preview_metadata": True,
        "supports_progress_text_metadata": False,
        "supports_manager_v4_ui": "yes",
        "evil": True,
    }
    frame = to_upstream(frame_of("feature_flags", data))
    assert frame is not None
    assert json.loads(frame) == {
        "type": "feature_flags",
        "data": {"supports_preview_metadata": True, "supports_progress_text_metadata": False},
    }


@pytest.mark.parametrize(
    "frame",
    [frame_of("feature_flags", []), frame_of("feature_flags", None), '{"type": "feature_flags"}'],
)
def test_a_client_may_ask_for_comfyuis_features_and_tell_none(frame: str) -> None:
    assert to_upstream(frame) == '{"type":"feature_flags","data":{}}'


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "x",
        "[]",
        "5",
        frame_of("status", {}),
        frame_of("feature_flags", {"x": "y" * MAX_CLIENT_MESSAGE_LENGTH}),
    ],
)
def test_nothing_else_of_a_client_goes_on(frame: str) -> None:
    assert to_upstream(frame) is None


@given(st.binary(max_size=40), st.booleans())
def test_no_binary_frame_breaks_the_rules(frame: bytes, is_running: bool) -> None:
    passed = rules(is_running).binary(frame, JOBS)
    assert passed is None or is_running


@given(st.text(max_size=60))
def test_no_text_frame_breaks_the_rules(frame: str) -> None:
    assert rules(is_running=True).text(frame, JOBS) is None
    assert to_upstream(frame) is None
