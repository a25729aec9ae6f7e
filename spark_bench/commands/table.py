"""print the table of a suite, and write it as Markdown and CSV"""

from spark_bench.commands.options import add_suite, find_suite
from spark_bench.commands.parsing import Namespace, Parser


def add_options(parser: Parser) -> None:
    add_suite(parser)
    parser.add_argument(
        '--format',
        choices=('terminal', 'markdown', 'csv', 'latex', 'html'),
        help='only this one, to standard output or the file of --output',
    )
    parser.add_argument('--output', metavar='FILE', help='its end names the format: .txt, .md, .csv, .tex, .html')


def main(args: Namespace) -> int:
    from spark_bench.tables import command

    args.suite, specs = find_suite(args)
    return command.main(args, specs)
