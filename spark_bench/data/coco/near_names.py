"""Which file an annotation probably means, where none has the name that it states."""

import contextlib
import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from spark_bench.data.images.listing import list_files
from spark_bench.errors import InputError

# Label Studio puts eight hexadecimal digits before the name of an uploaded file.
_UPLOAD = re.compile(r'[0-9a-f]{8}-')


class NearNames:
    """The files of a folder, found by names that differ in what people and systems change without meaning to.

    Upper and lower case, the two forms of accents, ``%20`` for a space, backslashes, folders before the name (a
    repeated one, an upload path), and what upload tools put before it.

    Args:
        folder: that names are relative to; it is listed when the first name is asked for.
    """

    def __init__(self, folder: Path | str):
        self._folder = Path(folder)

    def find(self, name: str) -> str | None:
        """The one file that ``name`` probably means, relative to the folder; None for none or several."""
        by_path, by_name = self._listed
        path = _plain(name)
        own = path.rpartition('/')[2]
        for known, key in ((by_path, path), (by_name, own), (by_name, _UPLOAD.sub('', own, count=1))):
            if len(known[key]) == 1:
                return known[key][0]
        return None

    @cached_property
    def _listed(self):
        by_path, by_name = defaultdict(list), defaultdict(list)
        with contextlib.suppress(InputError):
            for name in list_files(self._folder, lambda name: True).names:
                path = _plain(name)
                by_path[path].append(name)
                by_name[path.rpartition('/')[2]].append(name)
        return by_path, by_name


def _plain(name):
    name = unquote(name.replace('\\', '/'))
    return unicodedata.normalize('NFC', os.path.normpath(name)).casefold()


def probably(near: NearNames, name: str) -> str:
    """``, probably 'x.jpg' is meant``, or nothing."""
    found = near.find(name)
    return f', probably {found!r} is meant' if found else ''
