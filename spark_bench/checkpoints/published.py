"""Where published weights are: an index by name and architecture, edited by hand; nothing is fetched unasked."""

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_bench.checkpoints.files.foreign import explain
from spark_bench.checkpoints.files.reading import read_metadata
from spark_bench.errors import InputError, RunError
from spark_bench.files import new_file
from spark_bench.places import cache_folder, shipped

if TYPE_CHECKING:
    from mmengine.config import Config

INDEX = 'spark_bench/checkpoints/published.json'
_CHUNK = 1 << 20


def choose_weights(
    asked: str | None,
    config: 'Config | dict[str, Any]',
    arch: str | None = None,
    cache_dir: Path | str | None = None,
    download: bool = False,
) -> tuple[str | None, str | None]:
    """What a run of ``config`` starts from.

    Args:
        asked: a path; a name of the index (``spark``, ``supervised``, ``mae``, ``simmim``); ``scratch``; or None for
            what the config's ``init`` says.
        config: recipe, with ``model.arch`` or ``model.backbone.arch`` and perhaps ``init`` and ``method``; an empty
            one where no recipe is run.
        arch: in place of the recipe's.
        cache_dir: see :func:`find_published`.
        download: fetch a file that is not there.

    Returns:
        ``(path, method)``: None for no weights; the method is None where the file itself must say.

    Raises:
        InputError: for a name without an architecture, or a file that is not there, saying where it is published.
    """
    name = config.get('init') if asked is None else asked
    if name is None or name == 'scratch':
        return None, 'scratch'
    if asked is not None and (Path(asked).is_file() or asked not in {entry['name'] for entry in read_index()}):
        # What the file says of itself comes before the recipe that it is given for.
        said = read_metadata(asked).get('method', '')
        # Another code may keep anything under that word.
        said = said if re.fullmatch(r'\w[\w.-]{0,99}', said, re.ASCII) else None
        return asked, said or (config.get('method') if config.get('init') else None)
    model = config.get('model', {})
    arch = arch or model.get('arch') or model.get('backbone', {}).get('arch')
    if arch is None:
        known = ', '.join(sorted(entry['arch'] for entry in read_index() if entry['name'] == name))
        raise InputError(f'--weights {name}: name the network with --arch; published are those of {known}')
    path = find_published(name, arch, cache_dir, download)
    return str(path), name if asked else config.get('method', name)


def read_index() -> list[dict[str, str | None]]:
    """The entries of the index, a list of dicts: name, arch, file, url, sha256 (or None), source."""
    return json.loads(shipped(INDEX).read_text())['files']


def find_published(name: str, arch: str, cache_dir: Path | str | None = None, download: bool = False) -> Path:
    """Path of a published file in the cache, its checksum verified where the index states one.

    Args:
        name, arch: of the index.
        cache_dir: its folder ``weights`` holds the files; see :func:`spark_bench.places.cache_folder`.
        download: fetch it where it is not there.

    Raises:
        InputError: for an entry that does not exist, a file that is not there, or a wrong checksum.
        RunError: where the download fails.
    """
    entries = {entry['arch']: entry for entry in read_index() if entry['name'] == name}
    if arch not in entries:
        known = ', '.join(sorted(entries)) or 'nothing'
        raise InputError(
            f'no published weights {name!r} of {arch} are known (of {known} they are): give a file with '
            f'--weights, or add it to {INDEX}'
        )
    entry = entries[arch]
    path = cache_folder(cache_dir) / 'weights' / entry['file']
    if not path.is_file():
        if not download:
            raise InputError(
                f'{path} is not there: download {entry["url"]} to it, or add --download; or give a file with --weights'
            )
        _fetch(entry, path)
    _verify(entry, path)
    return path


def _fetch(entry, path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'{path.parent} cannot be made: {error.strerror}; give another --cache-dir') from error
    with new_file(path) as partial:
        with open(partial, 'wb') as file:
            for chunk in _chunks(entry, path):
                file.write(chunk)
        reason = explain(partial, partial.stat().st_size) or _otherwise(entry, partial)
        if reason:
            raise RunError(f'what {entry["url"]} gives {reason}; download it by hand to {path}')


def _chunks(entry, path):
    """The bytes of a published file, as they come. Raises RunError where they stop too early."""
    # Not by torch.hub, which takes half a file for whole where no checksum is stated, and waits for ever.
    try:
        with urllib.request.urlopen(entry['url'], timeout=60) as answer:
            expected, size = answer.headers.get('Content-Length'), 0
            while chunk := answer.read(_CHUNK):
                size += len(chunk)
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise RunError(
            f'{entry["url"]} cannot be fetched ({getattr(error, "reason", error)}): download it by hand to {path}'
        ) from error
    if expected is not None and size != int(expected):
        raise RunError(f'{entry["url"]} broke off after {size} of {expected} bytes: try again')


def _verify(entry, path):
    """Compare with the index."""
    reason = _otherwise(entry, path)
    if reason:
        raise InputError(f'{path} {reason}: remove it, and download it again')


def _otherwise(entry, path):
    """In words what tells a file from the published one, by its whole SHA-256 or as much as the publisher states."""
    if not entry.get('sha256'):
        return None
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if found.startswith(entry['sha256']):
        return None
    return f'is not what was published (SHA-256 {found[:16]}…, expected {entry["sha256"][:16]}…)'
