"""What both Python programs say of what the SDK gave them, as JSON."""

import base64
import dataclasses
import json
import sys
import threading

_lock = threading.Lock()


def say(**message):
    with _lock:
        sys.stdout.write(json.dumps(message, default=str) + "\n")
        sys.stdout.flush()


def output(found):
    names = ("node_id", "name", "type", "id", "size_bytes", "content_type", "job_id")
    return {name: getattr(found, name) for name in names}


def job(found):
    error = found.error and found.error.model_dump()
    told = {"id": found.id, "status": found.status, "error": error, "metadata": found.metadata}
    return told | {"outputs": [output(each) for each in found.outputs]}


def summary(found):
    names = ("id", "status", "metadata")
    times = {name: getattr(found, name) and getattr(found, name).isoformat() for name in ("create_time", "update_time")}
    return {name: getattr(found, name) for name in names} | times


def asset(found):
    return {name: getattr(found, name) for name in ("id", "hash", "file_path", "created_new", "job_id", "expires_at")}


def event(found):
    name = type(found).__name__
    told = {"kind": name[0].lower() + name[1:]}
    if name == "OutputReady":
        return told | {"output": output(found.output)}
    if name == "Preview":
        return told | {"node_id": found.node_id, "content_type": found.content_type, "bytes": encoded(found.data)}
    return told | dataclasses.asdict(found)


def error(exception):
    names = ("code", "http_status", "details", "retry_after", "request_id")
    told = {"class": type(exception).__name__, "bases": [each.__name__ for each in type(exception).__mro__]}
    return told | {"message": str(exception)} | {name: getattr(exception, name, None) for name in names}


def encoded(data):
    return base64.b64encode(data).decode()


def decoded(text):
    return base64.b64decode(text)
