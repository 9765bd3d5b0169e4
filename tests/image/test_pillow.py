"""Pillow's process-wide settings hold while any thread needs them, and are restored afterwards."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from PIL import Image, ImageFile

from restore_cli.image.formats.pillow import pillow_settings


def test_settings_hold_in_all_threads_and_are_restored() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    inside, left = Barrier(8), Barrier(8)

    def work(number: int) -> bool:
        found = []
        with pillow_settings():
            inside.wait()  # all threads are inside at once
            found.append(Image.MAX_IMAGE_PIXELS is None)
        if number % 2:
            with pillow_settings():
                found.append(Image.MAX_IMAGE_PIXELS is None)
        left.wait()
        return all(found)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
