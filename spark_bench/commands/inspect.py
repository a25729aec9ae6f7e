"""what a checkpoint holds and can initialise, or what a network costs"""

import json

from spark_bench.commands.options import add_key_prefix
from spark_bench.commands.parsing import Namespace, Parser, positive
from spark_bench.errors import InputError


def add_options(parser: Parser) -> None:
    parser.add_argument('file', nargs='?', metavar='FILE', help='.safetensors or .pth')
    parser.add_argument(
        '--arch',
        metavar='NAME',
        help='network of timm: of FILE, where its names are of no known format; without a file, parameters and '
        'multiply-adds of one of 1000 classes',
    )
    parser.add_argument(
        '--input-size',
        type=positive,
        metavar='PIXELS',
        help='with --arch (default: 224, or the one that the network takes)',
    )
    add_key_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')


def main(args: Namespace) -> int:
    """Print what a file is, or what a network costs; 1 where the file has problems."""
    if args.file is None:
        if args.arch is None:
            raise InputError('nothing to look at: give a FILE, or --arch NAME for what a network costs')
        if args.key_prefix is not None:
            raise InputError('--key-prefix is of no use without a file')
        from spark_bench.models.complexity import as_text, inspect_network

        report = inspect_network(args.arch, args.input_size)
    else:
        if args.input_size is not None:
            raise InputError('--input-size is of no use with a file: give it with --arch alone')
        from spark_bench.checkpoints.inspect import as_text, inspect

        report = inspect(args.file, args.key_prefix, args.arch)
    if args.json:  # which knows no infinity, and no NaN
        report = json.loads(json.dumps(report), parse_constant=str)
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(as_text(report))
    return 1 if report.get('problems') else 0
