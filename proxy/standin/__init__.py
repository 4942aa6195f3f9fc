"""A stand-in for ComfyUI 0.33: the same API, small image workflows that truly run, no models. Needs Pillow."""

from proxy.standin.events import SocketFrame
from proxy.standin.middleware import Received
from proxy.standin.server import StandIn

__all__ = ["Received", "SocketFrame", "StandIn"]
