"""comfy_sdk.AsyncComfy, told line by line what to call: `{"n": 1, "do": "submit", "graph": {…}}` on standard input, the outcome on standard output."""

import asyncio
import io
import json
import sys

import told
from comfy_sdk import AsyncComfy


class Desk:
    def __init__(self, client):
        self.client = client
        self.jobs = {}

    async def filled(self, value):
        """The graph with handles: `{"$bytes": {…}}` is a new asset, `{"$file": path}` too, `{"$asset": id}` one that is there."""
        if isinstance(value, dict):
            match value:
                case {"$bytes": given}:
                    return self.bytes_of(**given)
                case {"$file": path}:
                    return self.client.assets.from_file(path)
                case {"$asset": id}:
                    return await self.client.assets.get(id)
            return {name: await self.filled(each) for name, each in value.items()}
        return [await self.filled(each) for each in value] if isinstance(value, list) else value

    def bytes_of(self, data, filename=None, content_type=None):
        return self.client.assets.from_bytes(told.decoded(data), filename=filename, content_type=content_type)

    def kept(self, job):
        self.jobs[job.id] = job
        return told.job(job)

    async def job(self, id):
        return self.jobs.get(id) or await self.client.jobs.get(id)

    async def submit(self, n, graph, **options):
        return self.kept(await self.client.submit(self.client.workflows.from_json(await self.filled(graph)), **options))

    async def run(self, n, graph, **options):
        return self.kept(await self.client.run(self.client.workflows.from_json(await self.filled(graph)), **options))

    async def get(self, n, job):
        return self.kept(await self.client.jobs.get(job))

    async def wait(self, n, job):
        return self.kept(await (await self.job(job)).wait())

    async def result(self, n, job):
        return self.kept(await (await self.job(job)).result())

    async def cancel(self, n, job):
        return self.kept(await (await self.job(job)).cancel())

    async def workflow(self, n, job):
        found = await (await self.job(job)).get_workflow()
        return {"graph": found.graph, "format": found.format}

    async def events(self, n, job):
        async for event in (await self.job(job)).events():
            told.say(n=n, event=told.event(event))

    async def list(self, n, **options):
        return [told.summary(each) async for each in self.client.list_jobs(**options)]

    async def output(self, job, output):
        return next(each for each in (await self.job(job)).outputs if each.id == output)

    async def read(self, n, job, output, range=None):
        return told.encoded(await (await self.output(job, output)).to_bytes(range=range and tuple(range)))

    async def stream(self, n, job, output):
        target = io.BytesIO()
        await (await self.output(job, output)).to_stream(target)
        return told.encoded(target.getvalue())

    async def save(self, n, job, output, path):
        return str(await (await self.output(job, output)).to_file(path))

    async def link(self, n, job, output):
        found = await (await self.output(job, output)).get_download_url()
        return {"url": found.url, "expires_at": found.expires_at}

    async def upload(self, n, **given):
        asset = self.client.assets.from_file(given["path"]) if "path" in given else self.bytes_of(**given)
        await asset.commit()
        return told.asset(asset)

    async def asset(self, n, asset):
        return told.asset(await self.client.assets.get(asset))

    async def asset_link(self, n, asset):
        found = await (await self.client.assets.get(asset)).get_download_url()
        return {"url": found.url, "expires_at": found.expires_at}

    async def delete(self, n, asset):
        await self.client.assets.delete(asset)

    async def exists(self, n, hash):
        return await self.client._low.head_asset_by_hash(hash)

    async def from_hash(self, n, hash, file_path=None):
        return (await self.client._low.asset_from_hash(hash, file_path=file_path)).model_dump(mode="json")


async def carry_out(desk, n, do, **given):
    try:
        told.say(n=n, value=await getattr(desk, do)(n, **given))
    except BaseException as exception:
        told.say(n=n, error=told.error(exception))


async def main():
    async with AsyncComfy() as client:
        desk, tasks = Desk(client), []
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.append(asyncio.create_task(carry_out(desk, **json.loads(line))))


asyncio.run(main())
