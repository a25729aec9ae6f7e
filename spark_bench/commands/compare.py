"""two sets of records side by side: what differs beyond noise; merging"""

from spark_bench.commands.parsing import Namespace, Parser


def add_options(parser: Parser) -> None:
    for name in 'ab':
        parser.add_argument(name, metavar=name.upper(), help='a results folder, a folder inside one, or a record')
    parser.add_argument('--metric', nargs='+', metavar='NAME', help='default: top1, box_ap, mask_ap, pretraining loss')
    parser.add_argument(
        '--merge', metavar='DIR', help='write the records of both here, unless any are in conflict; those are named'
    )
    parser.add_argument('--format', choices=('terminal', 'markdown', 'csv'), help='default: terminal')
    parser.add_argument('--output', metavar='FILE', help='in place of standard output: .txt, .md or .csv')


def main(args: Namespace) -> int:
    from spark_bench.tables import differences

    return differences.main(args)
