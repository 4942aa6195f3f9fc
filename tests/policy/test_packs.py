"""The pack files that come with the gate: what each opens, and what stays closed whatever is chosen."""

from __future__ import annotations

import pytest

from policy.custom_routes import Kind
from policy.route_kinds import make_routes
from policy.routes import RouteTable
from proxy.config.packs import load_packs

PACKS = load_packs()
TABLE = RouteTable(
    tuple(route for name, pack in PACKS.items() for row in pack.routes for route in make_routes(row, name))
)
ROWS = [(name, row) for name, pack in PACKS.items() for row in pack.routes]


def kind_of(method: str, path: str) -> str | None:
    found = TABLE.match(method, tuple(path.strip("/").split("/")))
    return found.route.kind if found else None


def test_the_known_packs_are_there() -> None:
    assert list(PACKS) == [
        "autocomplete-plus", "crystools", "custom-scripts", "easy-use", "image-chooser", "image-filter", "impact",
        "kjnodes", "krita", "lora-manager", "manager", "rgthree", "vhs",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda value: getattr(value, "path", value))
def test_every_row_says_what_it_is_for(name: str, row: object) -> None:
    note = getattr(row, "note", "")
    assert note, name
    assert note[:1].islower() or (note[:1].isupper() and note.split()[0] in ("ComfyUI", "LoRA")), (
        "it stands within a sentence"
    )
    assert not note.endswith(".")


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_every_pack_says_whose_it_is(pack: object) -> None:
    assert getattr(pack, "repository", "").startswith("https://github.com/")
    assert getattr(pack, "title", "")
    assert getattr(pack, "folders", ())


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("GET /rgthree/config.js", "static"),
        ("GET /rgthree/common/media/svgs.js", "static"),
        ("GET /kjweb_async/marked.min.js", "static"),
        ("GET /loras_static/js/a.js", "static"),
        ("GET /locales/en.json", "static"),
        ("GET /pysssss/autocomplete", "static"),
        ("GET /autocomplete-plus/csv", "static"),
        ("GET /impact/wildcards/list", "static"),
        ("GET /easyuse/version", "static"),
        ("GET /easyuse/prompt/styles", "static"),
        ("GET /pysssss/loras", "shared-read"),
        ("GET /pysssss/view/loras", "shared-read"),
        ("GET /pysssss/metadata/loras", "shared-read"),
        ("GET /rgthree/api/loras", "shared-read"),
        ("GET /rgthree/api/checkpoints/info", "shared-read"),
        ("GET /rgthree/api/loras/img", "shared-read"),
        ("GET /api/etn/model_info/loras", "shared-read"),
        ("GET /api/etn/languages", "shared-read"),
        ("GET /easyuse/models/list", "shared-read"),
        ("GET /api/lm/loras/list", "shared-read"),
        ("GET /vhs/viewvideo", "own-file"),
        ("GET /viewvideo", "own-file"),
        ("GET /vhs/viewaudio", "own-file"),
        ("GET /vhs/queryvideo", "own-file"),
        ("PUT /api/etn/image/x", "own-id"),
        ("GET /api/etn/image/x", "own-id"),
        ("POST /cg-image-filter-message", "own-job"),
        ("POST /image_chooser_message", "own-job"),
        ("POST /easyuse/image_chooser_message", "own-job"),
        ("POST /easyuse/message_callback", "own-job"),
        ("GET /manager/version", "admin"),
        ("POST /v2/manager/queue/install", "admin"),
        ("GET /customnode/installed", "admin"),
        ("POST /v2/customnode/install/git_url", "admin"),
        ("POST /snapshot/restore", "admin"),
        ("GET /externalmodel/getlist", "admin"),
        ("PATCH /crystools/monitor", "admin"),
        ("GET /crystools/monitor/HDD", "admin"),
        ("GET /easyuse/reboot", "admin"),
        ("POST /easyuse/cleangpu", "admin"),
        ("PUT /api/etn/upload/loras/a.safetensors", "admin"),
        ("GET /vhs/getpath", "never"),
        ("GET /getpath", "never"),
        ("POST /api/etn/workflow/publish", "never"),
        ("POST /rgthree/api/config", "never"),
        ("POST /pysssss/save/loras", "never"),
        ("GET /pysssss/workflows", "never"),
        ("POST /easyuse/save/loras", "never"),
        ("GET /impact/segs/picker/view", "never"),
        ("POST /rgthree/api/print", None),
        ("GET /rgthree/api/loras/delete", None),
    ],
)
def test_what_is_known_of_a_call(call: str, kind: str | None) -> None:
    method, path = call.split()
    assert kind_of(method, path) == kind


def test_nothing_that_writes_is_open_but_for_ones_own() -> None:
    for name, row in ROWS:
        if row.kind in (Kind.STATIC, Kind.SHARED_READ, Kind.OWN_FILE):
            assert row.methods == ("GET",), name


def test_nothing_is_heard_of_all_nodes_that_wait() -> None:
    """ "-1" means any node that waits: only the body that ends a wait may name it."""
    for name, row in ROWS:
        if row.kind is Kind.OWN_JOB and row.node:
            assert set(row.cancel) <= {row.node, "message"}, name
