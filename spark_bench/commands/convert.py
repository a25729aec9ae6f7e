"""write a checkpoint in another format"""

from spark_bench.commands.options import add_key_prefix
from spark_bench.commands.parsing import Namespace, Parser
from spark_bench.errors import first_of

_SHOWN = 12


def add_options(parser: Parser) -> None:
    parser.add_argument('file', metavar='FILE', help='.safetensors or .pth, in any known format')
    parser.add_argument(
        '--to', required=True, choices=('timm', 'official', 'mmdet', 'mmpretrain', 'spark', 'safetensors')
    )
    parser.add_argument('--output', metavar='FILE', help='.safetensors or .pth (default: beside the input)')
    add_key_prefix(parser)
    parser.add_argument('--arch', metavar='NAME', help='network of timm, of a file whose names are of no known format')
    parser.add_argument('--force', action='store_true', help='overwrite the output')


def main(args: Namespace) -> int:
    """Convert the file, and tell what became of its tensors."""
    from spark_bench.checkpoints.convert import convert

    output, written, left_out = convert(args.file, args.to, args.output, args.force, args.key_prefix, args.arch)
    print(f'{output}: {written} tensors')
    if left_out:
        print(f'left out ({len(left_out)}): {first_of(left_out, _SHOWN)}')
    return 0
