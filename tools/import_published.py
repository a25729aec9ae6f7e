"""Write published figures as records: tools/import_published.py FILE.json [--results DIR].

A figure goes into every suite whose tables show it, or into suite 'others'. Records that are there already stay.
"""

import argparse
import sys

from spark_bench.errors import InputError, printable
from spark_bench.suites import published

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('file', metavar='FILE', help='list of figures, as spark_bench/suites/published.py describes it')
    parser.add_argument('--results', default='results', metavar='DIR', help='records (default: results)')
    try:
        sys.exit(published.main(parser.parse_args()))
    except InputError as error:
        print(f'import_published: error: {printable(error)}', file=sys.stderr)
        sys.exit(2)
