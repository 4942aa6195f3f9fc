"""Text to picture without a model: the same seed and texts always give the same soft coloured noise."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

from PIL import Image

from standin.events import Preview
from standin.nodes.loading import Model
from standin.nodes.runner import Context, Outcome, Pictures, Runner

GRID = 6
PREVIEW_SIDE = 512
PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")


@dataclass(frozen=True)
class Latent:
    width: int
    height: int
    batch_size: int
    noise: str = ""
    pictures: tuple[Image.Image, ...] = ()


class CLIPTextEncode(Runner):
    def run(self, context: Context, text: str, clip: Model) -> Outcome:
        return Outcome((f"{clip.name}:{text}",))


class EmptyLatentImage(Runner):
    def run(self, context: Context, width: int, height: int, batch_size: int = 1) -> Outcome:
        return Outcome((Latent(width, height, batch_size),))


class KSampler(Runner):
    def run(
        self,
        context: Context,
        model: Model,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: str,
        negative: str,
        latent_image: Latent,
        denoise: float = 1.0,
    ) -> Outcome:
        settings = (model.name, seed, steps, cfg, sampler_name, scheduler, positive, negative, denoise)
        noise = hashlib.sha256(repr((*settings, latent_image.noise)).encode()).hexdigest()
        has_previews = context.extra_data.get("preview_method") in PREVIEW_METHODS
        for step in range(1, steps + 1):
            context.check_interrupt()
            preview = Preview("JPEG", picture(f"{noise}/0", GRID * step, GRID * step), PREVIEW_SIDE)
            context.progress(step, steps, preview if has_previews else None)
        return Outcome((replace(latent_image, noise=noise),))


class VAEDecode(Runner):
    def run(self, context: Context, samples: Latent, vae: Model) -> Outcome:
        if samples.pictures and not samples.noise:
            return Outcome((list(samples.pictures),))
        made = [picture(f"{samples.noise}/{n}", samples.width, samples.height) for n in range(samples.batch_size)]
        return Outcome((made,))


class VAEEncode(Runner):
    def run(self, context: Context, pixels: Pictures, vae: Model) -> Outcome:
        width, height = pixels[0].size
        return Outcome((Latent(width, height, len(pixels), pictures=tuple(pixels)),))


def picture(noise: str, width: int, height: int) -> Image.Image:
    source = random.Random(noise)  # noqa: S311 - a picture, not a secret
    coarse = Image.frombytes("RGB", (GRID, GRID), source.randbytes(3 * GRID * GRID))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


RUNNERS: dict[str, type[Runner]] = {
    "CLIPTextEncode": CLIPTextEncode,
    "EmptyLatentImage": EmptyLatentImage,
    "KSampler": KSampler,
    "VAEDecode": VAEDecode,
    "VAEEncode": VAEEncode,
}
