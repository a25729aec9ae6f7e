"""How options are read, whichever they are: nothing that somebody gave is dropped without a word."""

import ast
import os
import re
from argparse import Action, ArgumentError, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, cast

from spark_bench.commands.failures import EXIT_USAGE
from spark_bench.errors import InputError, printable
from spark_bench.places import NAME_PATTERN

# Options that are another word for keys of the config.
_WORDS_FOR = {
    'epochs': ('train_cfg.max_epochs',),
    'arch': ('model.arch', 'model.backbone.arch'),
    'amp': ('optim_wrapper.autocast',),
    'channels_last': ('channels_last',),
    'compile': ('compile',),
    'checkpoint_interval': ('default_hooks.checkpoint.interval',),
    'workers': tuple(f'{loader}_dataloader.num_workers' for loader in ('train', 'test', 'evaluation')),
    'bad_images': ('train_dataloader.dataset.bad_images',),
    'label_fraction': ('train_dataloader.dataset.fraction',),
    'label_seed': ('train_dataloader.dataset.fraction_seed',),
    'frozen': ('model.backbone.frozen',),
}


class Parser(ArgumentParser):
    """Reports bad usage in one line, and knows which of its options were given.

    An option of several values may be given again, and all of its values count, as in OpenMMLab's tools; the first
    takes the place of its default, which itself is never changed. One of a single value that is given again with
    another is refused.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._given: dict[str, Any] = {}  # from dest to what was given for it, in the line that is being parsed
        for word in (None, 'store'):
            self.register('action', word, _Store)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self._given = {}
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        hint = self._swallowed() if message.startswith('the following arguments are required') else ''
        self.exit(EXIT_USAGE, f'{self.prog}: error: {message}{hint} (see {self.prog} --help)\n')

    def keep(self, namespace: Namespace, action: Action, value: Any) -> None:
        """Set what an action was given, beside what it was given before."""
        several = action.nargs in ('+', '*')
        if action.dest in self._given and several:
            value = [*self._given[action.dest], *value]
        elif action.dest in self._given and self._given[action.dest] != value:
            raise ArgumentError(
                action, f'given twice, as {_shown(self._given[action.dest])} and {_shown(value)}: give it once'
            )
        self._given[action.dest] = value
        setattr(namespace, action.dest, value)

    def _swallowed(self):
        """What to do where an argument is missing because an option took it, which takes all words behind it."""
        absent = [
            action.metavar or action.dest
            for action in self._actions
            if not action.option_strings and action.required and action.dest not in self._given
        ]
        greedy = [
            action.option_strings[0]
            for action in self._actions
            if action.option_strings and action.nargs == '+' and action.dest in self._given
        ]
        if not absent or not greedy:
            return ''
        return f'; {greedy[0]} takes every word that follows it: put {" ".join(absent)} before it'


class _Store(Action):
    def __call__(self, parser, namespace, values, option_string=None):
        parser.keep(namespace, self, values)


class Flag(BooleanOptionalAction):
    """``--word`` and ``--no-word``, of which one may be given."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        cast(Parser, parser).keep(namespace, self, not option_string.startswith('--no-'))


def _shown(value):
    return {True: 'yes', False: 'no'}[value] if isinstance(value, bool) else repr(value)


def take_local_rank(words: Iterable[str]) -> list[str]:
    """The words of a command without ``--local-rank N``, as torch.distributed.launch gives it to each process.

    It goes to where torchrun has it, the environment.
    """
    taken, words = [], list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition('=')
        if name in ('--local-rank', '--local_rank') and (equals or words):
            os.environ.setdefault('LOCAL_RANK', value if equals else words.pop(0))
        else:
            taken.append(word)
    return taken


def refuse_unfit_name(args: Namespace) -> None:
    """Raise InputError for a name that no record can have, by the option that gave it."""
    for name in ('suite', 'method'):
        value = getattr(args, name, None)
        is_file = name == 'suite' and (args.command == 'run' or str(value).endswith('.py'))
        if value is not None and not is_file and not re.match(NAME_PATTERN, value):
            raise InputError(
                f'--{name} {printable(repr(value))} is no name; use letters, digits, ".", "_", "-", '
                'without ".." or leading "."'
            )


def refuse_contradiction(args: Namespace) -> None:
    """Raise InputError for a value that an option and ``--cfg-options`` give in different ways."""
    given: dict[str, Any] = {}
    for key, value in getattr(args, 'cfg_options', ()):
        if given.setdefault(key, value) != value:
            raise InputError(f'--cfg-options {key} is given twice, as {given[key]} and {value}: give it once')
    for name, keys in _WORDS_FOR.items():
        value = getattr(args, name, None)
        for key in keys if value is not None else ():
            if given.get(key, value) != value:
                raise InputError(
                    f'--{name.replace("_", "-")} and --cfg-options {key}={given[key]} are two words for '
                    'one value: leave one away'
                )


def _number(name, read, fits, complaint):
    """The type of an option that takes a number; argparse calls it by ``name`` where a text is no number at all."""

    def number(text):
        value = read(text)
        if not fits(value):
            raise ArgumentTypeError(f'{text} {complaint}')
        return value

    number.__name__ = name
    return number


positive = _number('positive', int, lambda value: value >= 1, 'is not positive')
count = _number('count', int, lambda value: value >= 0, 'is negative')
seed = _number('seed', int, lambda value: 0 <= value < 2**32, 'is not in 0 … 2^32 - 1')
ratio = _number('ratio', float, lambda value: 0 < value < 1, 'is not between 0 and 1')
share = _number('share', float, lambda value: 0 < value <= 1, 'is not above 0, up to 1')


def setting(text: str) -> tuple[str, object]:
    """``(key, value)`` of KEY=VALUE, read as Python or else as text, as an option's type."""
    key, equals, value = text.partition('=')
    if not key or not equals:
        raise ArgumentTypeError(f'{text!r} is not KEY=VALUE')
    if value.lower() in ('true', 'false'):
        return key, value.lower() == 'true'
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return key, value
