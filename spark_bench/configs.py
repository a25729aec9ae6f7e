"""Reading a config: mmengine's, which is Python and may raise anything."""

from pathlib import Path
from typing import TYPE_CHECKING

from spark_bench.compatibility import find_base_configs_at_once
from spark_bench.errors import InputError, printable

if TYPE_CHECKING:
    from mmengine.config import Config


def read_config(path: str | Path, what: str = 'config', import_custom_modules: bool = True) -> 'Config':
    """The config in a file, which messages call ``what``.

    As text, in which every run writes it several times, it has a line a value, and is not laid out to fit a page: yapf
    would take a second each time.

    Raises:
        InputError: one line with what is wrong.
    """
    if not Path(path).is_file():
        raise InputError(f'no {what} at {path}: give the path of an mmengine config file')
    from mmengine.config import Config  # a fifth of a second that printing a table should not pay

    find_base_configs_at_once()
    try:
        cfg = Config.fromfile(path, import_custom_modules=import_custom_modules)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        reason = printable(' '.join(str(error).split()))[:300] or 'nothing more is told'
        raise InputError(f'{what} {path} cannot be read ({type(error).__name__}: {reason})') from error
    object.__setattr__(cfg, '_format_python_code', False)  # as its constructor would, had `fromfile` told it
    return cfg
