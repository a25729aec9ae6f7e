"""Which file an annotation probably means, where none has the name that it states."""

import os
import re
import unicodedata
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
        self._by_path: dict[str, list[str]] | None = None
        self._by_name: dict[str, list[str]] = {}

    def find(self, name: str) -> str | None:
        """The one file that ``name`` probably means, relative to the folder; None for none or several."""
        if self._by_path is None:
            self._list()
        path = _plain(name)
        own = path.rpartition('/')[2]
        for known, key in ((self._by_path, path), (self._by_name, own), (self._by_name, _UPLOAD.sub('', own, count=1))):
            if len(known.get(key, ())) == 1:
                return known[key][0]
        return None

    def _list(self):
        self._by_path = {}
        try:
            names = list_files(self._folder, lambda name: True).names
        except InputError:
            return
        for name in names:
            path = _plain(name)
            self._by_path.setdefault(path, []).append(name)
            self._by_name.setdefault(path.rpartition('/')[2], []).append(name)


def _plain(name):
    name = unquote(name.replace('\\', '/'))
    return unicodedata.normalize('NFC', os.path.normpath(name)).casefold()


def probably(near: NearNames, name: str) -> str:
    """``, probably 'x.jpg' is meant``, or nothing."""
    found = near.find(name)
    return f', probably {found!r} is meant' if found else ''
