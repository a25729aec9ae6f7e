"""write the report of a suite: one self-contained HTML file"""

from spark_bench.commands.options import add_suite, find_suite
from spark_bench.commands.parsing import Namespace, Parser
from spark_bench.places import report_path


def add_options(parser: Parser) -> None:
    add_suite(parser)
    parser.add_argument('--output', metavar='FILE', help='default: <results>/report.html, or report-<suite>.html')
    parser.add_argument(
        '--figures', action='store_true', help='also write each figure as SVG and PNG to <results>/figures/<suite>/'
    )


def main(args: Namespace) -> int:
    from spark_bench.report import page as report

    suite, specs = find_suite(args)
    specs = specs or ()
    output = args.output or report_path(args.results, suite)
    report.claim_report(output)
    print(report.write_report(args.results, suite, output, args.work_dir or 'work_dirs', specs))
    for path in report.write_figures(args.results, suite, specs) if args.figures else ():
        print(path)
    return 0
