"""Routes of users and settings, in single-user mode: everything is in user/default."""

from __future__ import annotations

import json
import os
import re
import uuid
from typing import Any

from aiohttp import web

from standin.folders import Folders

SETTINGS_FILE = "comfy.settings.json"


class SettingsRoutes:
    def __init__(self, folders: Folders) -> None:
        self._user = os.path.join(folders.user, "default")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/settings", self.get_settings),
            web.get("/settings/{id}", self.get_setting),
            web.post("/settings", self.post_settings),
            web.post("/settings/{id}", self.post_setting),
        ]

    def _settings(self) -> dict[str, Any]:
        os.makedirs(self._user, exist_ok=True)
        path = os.path.join(self._user, SETTINGS_FILE)
        if not os.path.isfile(path):
            return {}
        try:
            with open(path, encoding="utf-8") as source:
                settings: dict[str, Any] = json.load(source)
                return settings
        except ValueError:
            return {}

    def _save_settings(self, settings: dict[str, Any]) -> None:
        with open(os.path.join(self._user, SETTINGS_FILE), "w", encoding="utf-8") as target:
            target.write(json.dumps(settings, indent=4))

    async def get_settings(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings())

    async def get_setting(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings().get(request.match_info["id"]))

    async def post_settings(self, request: web.Request) -> web.Response:
        settings = self._settings()
        self._save_settings({**settings, **await request.json()})
        return web.Response()

    async def post_setting(self, request: web.Request) -> web.Response:
        settings = self._settings()
        settings[request.match_info["id"]] = await request.json()
        self._save_settings(settings)
        return web.Response()


class UserRoutes:
    def __init__(self, folders: Folders) -> None:
        self._user = os.path.join(folders.user, "default")
        self._users_file = os.path.join(folders.user, "users.json")
        self._names = {"default": "default"}

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/users", self.get_users), web.post("/users", self.post_users)]

    async def get_users(self, request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": self._has_user()})

    def _has_user(self) -> bool:
        return os.path.exists(self._user)

    async def post_users(self, request: web.Request) -> web.Response:
        name = (await request.json())["username"]
        if name in self._names.values():
            return web.json_response({"error": "Duplicate username."}, status=400)
        name = name.strip()
        if not name:
            return web.json_response({"error": "username not provided"}, status=400)
        user_id = re.sub("[^a-zA-Z0-9-_]+", "-", name)
        if name.startswith("__") or user_id.startswith("__"):
            return web.json_response({"error": "System User prefix not allowed"}, status=400)
        user_id = f"{user_id}_{uuid.uuid4()}"
        self._names[user_id] = name
        self._save_users()
        return web.json_response(user_id)

    def _save_users(self) -> None:
        with open(self._users_file, "w", encoding="utf-8") as target:
            json.dump(self._names, target)
