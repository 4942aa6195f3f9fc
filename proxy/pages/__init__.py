"""The gate's own pages under /gate/: login, logout, who am I. Values in, replies out; they work without scripts and load nothing from elsewhere."""

from proxy.pages.login import LOGIN_PATH, Login, LoginPages, login_page, login_redirect, storage_page
from proxy.pages.me import MeView, me_json, me_page, wants_html
from proxy.pages.target import local_target

__all__ = [
    "LOGIN_PATH",
    "Login",
    "LoginPages",
    "MeView",
    "local_target",
    "login_page",
    "login_redirect",
    "me_json",
    "me_page",
    "storage_page",
    "wants_html",
]
