"""A stand-in for ComfyUI 0.33: the same API, small image workflows that truly run, no models. Needs Pillow."""

from standin.events import SocketFrame
from standin.middleware import Received
from standin.server import StandIn

__all__ = ["Received", "SocketFrame", "StandIn"]
