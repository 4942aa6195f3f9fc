"""comfy_sdk.Comfy, told line by line what to call: `{"n": 1, "do": "submit", "graph": {…}}` on standard input, the outcome on standard output."""

import io
import json
import sys
import threading

import told
from comfy_sdk import Comfy


class Desk:
    def __init__(self):
        self.client = Comfy()
        self.jobs = {}

    def filled(self, value):
        """The graph with handles: `{"$bytes": {…}}` is a new asset, `{"$file": path}` too, `{"$asset": id}` one that is there."""
        if isinstance(value, dict):
            match value:
                case {"$bytes": given}:
                    return self.bytes_of(**given)
                case {"$file": path}:
                    return self.client.assets.from_file(path)
                case {"$asset": id}:
                    return self.client.assets.get(id)
            return {name: self.filled(each) for name, each in value.items()}
        return [self.filled(each) for each in value] if isinstance(value, list) else value

    def bytes_of(self, data, filename=None, content_type=None):
        return self.client.assets.from_bytes(told.decoded(data), filename=filename, content_type=content_type)

    def kept(self, job):
        self.jobs[job.id] = job
        return told.job(job)

    def job(self, id):
        return self.jobs.get(id) or self.client.jobs.get(id)

    def submit(self, n, graph, **options):
        return self.kept(self.client.submit(self.client.workflows.from_json(self.filled(graph)), **options))

    def run(self, n, graph, **options):
        return self.kept(self.client.run(self.client.workflows.from_json(self.filled(graph)), **options))

    def get(self, n, job):
        return self.kept(self.client.jobs.get(job))

    def wait(self, n, job):
        return self.kept(self.job(job).wait())

    def result(self, n, job):
        return self.kept(self.job(job).result())

    def cancel(self, n, job):
        return self.kept(self.job(job).cancel())

    def workflow(self, n, job):
        found = self.job(job).get_workflow()
        return {"graph": found.graph, "format": found.format}

    def events(self, n, job):
        for event in self.job(job).events():
            told.say(n=n, event=told.event(event))

    def list(self, n, **options):
        return [told.summary(each) for each in self.client.list_jobs(**options)]

    def output(self, job, output):
        return next(each for each in self.job(job).outputs if each.id == output)

    def read(self, n, job, output, range=None):
        return told.encoded(self.output(job, output).to_bytes(range=range and tuple(range)))

    def stream(self, n, job, output):
        target = io.BytesIO()
        self.output(job, output).to_stream(target)
        return told.encoded(target.getvalue())

    def save(self, n, job, output, path):
        return str(self.output(job, output).to_file(path))

    def link(self, n, job, output):
        found = self.output(job, output).get_download_url()
        return {"url": found.url, "expires_at": found.expires_at}

    def upload(self, n, **given):
        asset = self.filled({"$file": given["path"]}) if "path" in given else self.bytes_of(**given)
        asset.commit()
        return told.asset(asset)

    def asset(self, n, asset):
        return told.asset(self.client.assets.get(asset))

    def asset_link(self, n, asset):
        found = self.client.assets.get(asset).get_download_url()
        return {"url": found.url, "expires_at": found.expires_at}

    def delete(self, n, asset):
        self.client.assets.delete(asset)

    def exists(self, n, hash):
        return self.client._low.head_asset_by_hash(hash)

    def from_hash(self, n, hash, file_path=None):
        return self.client._low.asset_from_hash(hash, file_path=file_path).model_dump(mode="json")


def carry_out(desk, n, do, **given):
    try:
        told.say(n=n, value=getattr(desk, do)(n, **given))
    except BaseException as exception:
        told.say(n=n, error=told.error(exception))


desk = Desk()
for line in sys.stdin:
    threading.Thread(target=carry_out, args=(desk,), kwargs=json.loads(line), daemon=True).start()
