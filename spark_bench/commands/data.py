"""prepare data sets"""

import sys

from spark_bench.commands.options import add_cache
from spark_bench.commands.parsing import Namespace, Parser, count, positive, ratio, seed


def add_options(parser: Parser) -> None:
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    embedded = kinds.add_parser('embedded', help='generate the embedded data set, without any download')
    embedded.add_argument('--size', choices=('full', 'quick'), default='full')
    embedded.add_argument('--seed', type=seed, default=0, metavar='N')
    add_cache(embedded)
    for kind, text, source in (
        ('nuclei', 'BBBC038 in COCO layout', 'stage1_train.zip of BBBC038, or the folder that it unpacks to'),
        ('cifar10', 'CIFAR-10 as images, a folder a class', 'cifar-10-binary.tar.gz, or the folder that it unpacks to'),
    ):
        prepare = kinds.add_parser(kind, help=f'{text}, from its published archive')
        prepare.add_argument('source', metavar='SOURCE', help=source)
        prepare.add_argument('--output', required=True, metavar='DIR', help='folder to make')
    held_out = kinds.add_parser(
        'holdout', help="hold out a part of a COCO folder's training images, to choose values by"
    )
    held_out.add_argument('source', metavar='SOURCE', help='folder in COCO layout; its val split is not looked at')
    held_out.add_argument('--output', required=True, metavar='DIR', help='folder to make')
    held_out.add_argument('--share', type=ratio, default=0.2, metavar='F', help='of the images (default: 0.2)')
    held_out.add_argument('--seed', type=seed, default=0, metavar='N', help='of the draw')
    check = kinds.add_parser('check', help='verify a COCO or ImageNet folder: files, sizes, boxes, masks, duplicates')
    check.add_argument(
        'root',
        metavar='DIR',
        help='annotations/instances_{train,val}*.json beside the folders of images, or train/<class>/ and val/<class>/',
    )
    check.add_argument('--layout', choices=('coco', 'imagenet'), help='default: what is found')
    check.add_argument('--workers', type=positive, metavar='N', help='processes (default: one a CPU core)')
    check.add_argument('--no-decode', action='store_true', help='look at the headers of images only')
    check.add_argument('--limit-shown', type=count, default=5, metavar='N', help='examples a problem (default: 5)')
    check.add_argument('--json', metavar='FILE', help='also write the report here')


def main(args: Namespace) -> int:
    """Prepare or check a data set and print what is there; 1 where a check found problems."""
    return {'embedded': _embedded, 'nuclei': _nuclei, 'cifar10': _cifar10, 'holdout': _hold_out, 'check': _check}[
        args.kind
    ](args)


def _embedded(args):
    from spark_bench.data import embedded

    sizes = embedded.SIZES[args.size]
    dataset = embedded.verify(embedded.prepare(args.size, seed=args.seed, cache_dir=args.cache_dir).root)
    print(dataset.root)
    print(f'unlabelled      {sizes.unlabelled} images')
    print(f'classification  {sizes.classification_train} train, {sizes.classification_val} val')
    print(f'detection       {sizes.detection_train} train, {sizes.detection_val} val')
    print(f'categories      {", ".join(dataset.categories)}')
    print(f'sha256          {dataset.sha256}')
    return 0


def _nuclei(args):
    from spark_bench.data import nuclei

    counts = nuclei.convert(args.source, args.output, lambda note: print(f'spark-bench: note: {note}', file=sys.stderr))
    for split, (images, objects, empty) in counts.items():
        left_out = f', {empty} empty masks left out' if empty else ''
        print(f'{args.output}/{split}: {images} images, {objects} nuclei{left_out}')
    return 0


def _cifar10(args):
    from spark_bench.data import cifar10

    for split, images in cifar10.convert(args.source, args.output).items():
        print(f'{args.output}/{split}: {images} images')
    return 0


def _hold_out(args):
    from spark_bench.data.hold_out import hold_out

    for split, images in hold_out(args.source, args.output, args.share, args.seed).items():
        print(f'{args.output}/{split}: {images} images')
    return 0


def _check(args):
    from spark_bench.data.check import check
    from spark_bench.files import claim_output, write_atomically

    if args.json:  # refused before the work rather than after it
        output = claim_output(args.json, rb'\{\s*"root":[^\n]*\n\s*"layout":', '--json')
    report = check(args.root, args.layout, args.workers, not args.no_decode, args.limit_shown)
    report.print(args.limit_shown)
    if args.json:
        write_atomically(output, report.to_json())
    return 1 if report.problems else 0
