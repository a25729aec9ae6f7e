"""Finished sets in the user's cache: written aside and renamed, checked, replaced when damaged.

A folder with its final name is complete. A set is generated in a hidden sibling folder whose name
holds the process id; the manifest is its last file, and one rename publishes it.
"""

import errno
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import cv2

from spark_bench.data.embedded.parts import SIZES, write_parts
from spark_bench.data.embedded.scenes import VERSION
from spark_bench.data.embedded.sources import CATEGORIES
from spark_bench.errors import InputError, RunError
from spark_bench.files import aside, remove_abandoned
from spark_bench.places import cache_folder
from spark_bench.records.environment import usable_cores

_MANIFEST = 'manifest.json'
_PACKAGES = ('numpy', 'opencv', 'scikit-image', 'scikit-learn', 'matplotlib', 'pillow')


@dataclass(frozen=True)
class EmbeddedDataset:
    """A finished embedded data set.

    Attributes:
        root: folder of the set.
        unlabelled: folder of images without labels.
        classification: folder with ``train`` and ``val``, each with one folder a category.
        detection: folder in COCO layout: ``annotations``, ``train2017``, ``val2017``.
        sha256: hash over the names and contents of all files but the manifest.
        categories: names; COCO category id k is ``categories[k - 1]``.
    """

    root: Path
    unlabelled: Path
    classification: Path
    detection: Path
    sha256: str
    categories: tuple[str, ...]


def prepare(
    size: str = 'full', *, seed: int = 0, cache_dir: Path | str | None = None, jobs: int | None = None
) -> EmbeddedDataset:
    """Return the embedded data set, generating it into the cache unless a sound one is there.

    Several processes may call this at once. A call that is killed leaves a hidden folder, which the
    next call removes; a call that fails leaves nothing.

    Args:
        size: a name in ``SIZES``.
        seed: non-negative integer.
        cache_dir: folder for finished sets; see :func:`spark_bench.places.cache_folder`.
        jobs: processes to draw with; the processors that this process may use if None.

    Raises:
        InputError: unknown size, negative seed, fewer than one job, a cache folder that cannot be
            written (read-only, full), or a dependency without its photographs or font.
    """
    if size not in SIZES:
        raise InputError(f'--size {size}: no such size; choose from {", ".join(SIZES)}')
    if seed < 0:
        raise InputError(f'--seed {seed}: must be 0 or greater')
    if jobs is not None and jobs < 1:
        raise InputError(f'jobs={jobs}: must be 1 or greater')
    cache_dir = cache_folder(cache_dir)
    root = cache_dir.absolute() / f'embedded-v{VERSION}-{size}-seed{seed}'
    wanted = {'version': VERSION, 'seed': seed, 'sizes': asdict(SIZES[size])}
    try:
        remove_abandoned(root)
        manifest = _read_sound_manifest(root, wanted)
        if manifest is None:
            manifest = _generate(root, SIZES[size], wanted, jobs or usable_cores())
        return _describe(root, manifest)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f'cannot use the cache directory {cache_dir}: {reason}; '
            'name a writable one with free space by SPARK_BENCH_CACHE or --cache-dir'
        ) from error


def verify(root: Path | str) -> EmbeddedDataset:
    """Check every file of a set against its manifest; return the ``EmbeddedDataset``.

    Raises:
        RunError: the manifest or a file is missing, unreadable, added or altered.
    """
    root = Path(root)
    remedy = f'delete {root} and run spark-bench data embedded'
    try:
        manifest = _read_manifest(root)
        sha256, files = _hash_files(root)
    except (OSError, ValueError) as error:
        raise RunError(f'{root} cannot be verified: {error}; {remedy}') from error
    if files != manifest['files']:
        raise RunError(f'{root} has {files} files where its manifest has {manifest["files"]}; {remedy}')
    if sha256 != manifest['sha256']:
        raise RunError(f'{root} has files that differ from those generated; {remedy}')
    return _describe(root, manifest)


def _hash_files(root):
    """Return (sha256 hex digest, number) of all files below a folder but the manifest, names included."""
    total = hashlib.sha256()
    names = sorted(
        path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file() and path != root / _MANIFEST
    )
    for name in names:
        digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
        total.update(f'{digest}  {name}\n'.encode())
    return total.hexdigest(), len(names)


def _read_manifest(root):
    """Return the manifest; ValueError if it is not one, OSError if it cannot be read."""
    manifest = json.loads((root / _MANIFEST).read_text(encoding='utf-8'))
    expected = {'version', 'seed', 'sizes', 'sha256', 'files'}
    if not isinstance(manifest, dict) or not expected <= manifest.keys():
        raise ValueError(f'{_MANIFEST} lacks entries')
    return manifest


def _read_sound_manifest(root, wanted):
    """Return the manifest if the set there is the wanted one with all its files, else None.

    Files are only counted, so that every start of a run can afford it; contents are left to ``verify``.
    """
    try:
        manifest = _read_manifest(root)
    except (OSError, ValueError):
        return None
    files = sum(len(names) for _, _, names in os.walk(root)) - 1
    sound = files == manifest['files'] and all(manifest[key] == value for key, value in wanted.items())
    return manifest if sound else None


def _describe(root, manifest):
    parts = (root / part for part in ('unlabelled', 'classification', 'detection'))
    return EmbeddedDataset(root, *parts, manifest['sha256'], CATEGORIES)


def _generate(root, sizes, wanted, jobs):
    """Generate a set aside, publish it as ``root`` and return the manifest of what is there then."""
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(root, 'tmp')
    try:
        temporary.mkdir()
        write_parts(temporary, sizes, wanted['seed'], jobs)
        sha256, files = _hash_files(temporary)
        manifest = {
            **wanted,
            'sha256': sha256,
            'files': files,
            'packages': {name: cv2.__version__ if name == 'opencv' else package_version(name) for name in _PACKAGES},
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n', encoding='utf-8')
        return _publish(temporary, root, manifest, wanted)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary, root, manifest, wanted):
    """Rename ``temporary`` to ``root`` and return the manifest of the set that is there then.

    A sound set that another process has put there stays; a damaged one is moved out of the way.
    """
    while True:
        try:
            temporary.rename(root)
            return manifest
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        present = _read_sound_manifest(root, wanted)
        if present is not None:
            return present
        damaged = aside(root, 'old')
        try:
            root.rename(damaged)
        except FileNotFoundError:  # another process has moved it already
            continue
        if damaged.is_dir():
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            damaged.unlink()
