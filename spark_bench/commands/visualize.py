"""images: reconstructions, and how far a mask survives"""

from spark_bench.commands.parsing import Namespace, Parser, positive, ratio, seed


def add_options(parser: Parser) -> None:
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    reconstruct = kinds.add_parser('reconstruct', help='input, masked, reconstruction, pasted; or a grid over methods')
    reconstruct.add_argument(
        '--weights',
        nargs='+',
        required=True,
        metavar='FILE',
        help='whole pretraining models (spark.safetensors); several make a grid',
    )
    reconstruct.add_argument('--labels', nargs='+', metavar='NAME', help='one a file (default: the method it names)')
    reconstruct.add_argument('--data-root', required=True, metavar='PATH', help='an image, or a folder of images')
    reconstruct.add_argument(
        '--count', type=positive, default=6, metavar='N', help='images, evenly spaced over the folder (default: 6)'
    )
    reconstruct.add_argument('--arch', metavar='NAME', help='timm convnet of files that do not name theirs')
    reconstruct.add_argument(
        '--statistics',
        choices=('original', 'visible'),
        default='original',
        help='where mean and contrast of masked patches come from (default: original)',
    )
    reconstruct.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    reconstruct.add_argument('--tiles', action='store_true', help='also write each image of the figure alone')
    pattern = kinds.add_parser('mask-pattern', help='the mask after 1, 2, 4, … convolutions, dense and sparse')
    pattern.add_argument('--arch', required=True, metavar='NAME', help='timm convnet')
    pattern.add_argument(
        '--layers',
        nargs='+',
        type=int,
        metavar='N',
        help='numbers of convolutions, 0 for the input (default: 0 1 2 4 8 … and the last)',
    )
    for kind, side, hidden in ((reconstruct, None, None), (pattern, 224, 0.6)):
        kind.add_argument(
            '--input-size',
            type=positive,
            default=side,
            metavar='P',
            help=f'side of the images in pixels (default: {side or "as trained"})',
        )
        kind.add_argument(
            '--mask-ratio',
            type=ratio,
            default=hidden,
            metavar='R',
            help=f'fraction of patches hidden (default: {hidden or "as trained"})',
        )
        kind.add_argument('--seed', type=seed, default=0, metavar='N', help='of the masks')
        kind.add_argument('--output', required=True, metavar='PATH', help='FILE.png, or a folder')


def main(args: Namespace) -> int:
    """Draw the figure; print the paths of what was written."""
    if args.kind == 'reconstruct':
        from spark_bench.visualize import reconstructions

        print(
            reconstructions.draw(
                args.weights,
                args.data_root,
                args.output,
                labels=args.labels,
                arch=args.arch,
                count=args.count,
                input_size=args.input_size,
                mask_ratio=args.mask_ratio,
                statistics=args.statistics,
                seed=args.seed,
                device=args.device,
                write_tiles=args.tiles,
            )
        )
    else:
        from spark_bench.visualize import patterns

        print(
            *patterns.draw(args.arch, args.output, args.input_size, args.mask_ratio, args.seed, args.layers), sep='\n'
        )
    return 0
