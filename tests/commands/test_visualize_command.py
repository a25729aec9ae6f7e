"""``spark-bench visualize`` from outside: the files that it writes, and one line for every wrong input."""

import csv
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import build_spark
from spark_bench import checkpoints, commands
from spark_bench.visualize.compose import write_png

SIDE = 64


def run(capsys, *arguments):
    """(exit status, standard output, standard error) of one command in this process."""
    try:
        status = commands.main(['visualize', *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def save_model(path, ablation='spark', **header):
    with torch.random.fork_rng():
        torch.manual_seed(len(ablation))
        model = build_spark('test_resnet', SIDE, 0.5, ablation, decoder_width=64)
        # A fresh decoder answers almost zero: too little to see in uint8.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        torch.nn.init.normal_(model.decoder.proj.weight)
        with torch.no_grad():
            model.train()(torch.randn(4, 3, SIDE, SIDE))
    checkpoints.save(
        model,
        path,
        {
            'arch': 'test_resnet',
            'input_size': str(SIDE),
            'mask_ratio': '0.5',
            'ablation': ablation,
            'decoder_width': '64',
            'method': ablation,
            **header,
        },
    )
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f'{i}.png')
    return folder


def read(path):
    return np.asarray(Image.open(path).convert('RGB'))


def place_of(tile, figure):
    """Where ``tile`` lies in ``figure`` pixel by pixel: every (row, column)."""
    height, width = tile.shape[:2]
    corner = (figure[: -height + 1, : -width + 1] == tile[0, 0]).all(-1)
    return [
        (y, x)
        for y, x in zip(*np.nonzero(corner), strict=True)
        if np.array_equal(figure[y : y + height, x : x + width], tile)
    ]


def test_one_model_shows_four_images_of_each_image(tmp_path, images, capsys):
    weights, output = save_model(tmp_path / 'spark.safetensors'), tmp_path / 'shown'
    status, out, err = run(
        capsys, 'reconstruct', '--weights', weights, '--data-root', images, '--count', 2, '--output', output, '--tiles'
    )
    assert (status, out, err) == (0, f'{output}/reconstructions.png\n', '')
    figure, tiles = read(output / 'reconstructions.png'), output / 'reconstructions-tiles'
    names = ('0-input', '1-masked', '2-reconstruction', '3-pasted')
    assert sorted(path.name for path in tiles.glob('[!.]*')) == [f'{row:03d}-{n}.png' for row in (0, 1) for n in names]
    places = [[place_of(read(tiles / f'{row:03d}-{name}.png'), figure) for name in names] for row in (0, 1)]
    assert all(len(found) == 1 for row in places for found in row), 'each tile stands in the figure, unchanged'
    rows, columns = zip(*(found[0] for row in places for found in row), strict=True)
    assert len(set(rows)) == 2 and len(set(columns)) == 4
    # Evenly spaced over the folder, at their own pixels.
    assert np.array_equal(read(tiles / '001-0-input.png'), read(images / '2.png'))
    assert sorted(path.name for path in output.glob('[!.]*')) == ['reconstructions-tiles', 'reconstructions.png']
    # A figure of fewer images has no tiles of the one before.
    fewer = ('reconstruct', '--weights', weights, '--data-root', images, '--count', 1, '--output', output, '--tiles')
    assert run(capsys, *fewer)[0] == 0
    assert sorted(path.name for path in tiles.glob('[!.]*')) == [f'000-{name}.png' for name in names]


def test_images_are_normalised_as_the_file_says(tmp_path, images, capsys):
    weights = save_model(tmp_path / 'spark.safetensors', mean='[0, 0, 0]', std='[255, 255, 255]')
    given = ('reconstruct', '--weights', weights, '--data-root', images, '--count', 1, '--tiles')
    assert run(capsys, *given, '--output', tmp_path / 'a.png')[0] == 0
    masked = read(tmp_path / 'a-tiles/000-1-masked.png')
    # The mean colour of such images is black.
    assert (masked == 0).all(-1).mean() == pytest.approx(0.5, abs=0.01)


def test_an_architecture_that_no_file_is_of_is_refused(tmp_path, images, capsys):
    weights = save_model(tmp_path / 'spark.safetensors')
    given = ('reconstruct', '--weights', weights, '--data-root', images, '--output', tmp_path / 'a.png')
    status, out, err = run(capsys, *given, '--arch', 'resnet50')
    assert (status, out) == (2, '') and '--arch resnet50' in err and f'{weights} says that it is of' in err


def test_figures_below_the_images_are_never_among_them(tmp_path, images, capsys, monkeypatch):
    weights = save_model(tmp_path / 'spark.safetensors')
    monkeypatch.chdir(images)
    given = ('reconstruct', '--weights', weights, '--data-root', '.', '--count', '9', '--tiles')
    drawn = [
        run(capsys, *given, '--output', 'figures')[0] or (images / 'figures/reconstructions.png').read_bytes()
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(list((images / 'figures').rglob('*-0-input.png'))) == 3
    (images / 'mine').mkdir()
    (images / 'mine/notes.txt').write_text('here before')
    for output in ('.', 'figure.png', 'mine', 'mine/figure.png'):
        status, out, err = run(capsys, *given, '--output', output)
        assert (status, out) == (2, '') and '--output' in err and 'lies among the images' in err
    assert not [*images.glob('*figure*.png'), *images.glob('mine/*.png')]


def test_a_grid_gives_every_method_the_same_masks(tmp_path, images, capsys):
    files = [save_model(tmp_path / f'{name}.safetensors', name) for name in ('spark', 'black_mosaic', 'ape')]
    status, _, err = run(
        capsys,
        'reconstruct',
        '--weights',
        *files,
        '--labels',
        'input',  # as a column that is there already
        'B/b',
        'masked',
        '--data-root',
        images,
        '--output',
        tmp_path / 'grid.PNG',
        '--tiles',
    )
    assert (status, err) == (0, '')
    tiles = tmp_path / 'grid-tiles'
    for row in range(3):
        original, masked, *pasted = (read(path) for path in sorted(tiles.glob(f'{row:03d}-*.png')))
        hidden = (masked == [124, 116, 104]).all(-1)
        assert hidden.mean() == pytest.approx(0.5, abs=0.001)
        assert len(pasted) == 3 and not np.array_equal(pasted[0], pasted[1])
        for image in pasted:
            assert np.array_equal(image[~hidden], original[~hidden])
            assert (image[hidden] != original[hidden]).any()


@pytest.mark.parametrize('stated', [True, False])
def test_a_torch_file_is_shown_as_the_header_of_ours_would_have_it(stated, tmp_path, images, capsys):
    save_model(tmp_path / 'spark.safetensors')
    if stated:
        assert (
            commands.main(
                [
                    'convert',
                    str(tmp_path / 'spark.safetensors'),
                    '--to',
                    'spark',
                    '--output',
                    str(tmp_path / 'authors.pth'),
                ]
            )
            == 0
        )
        capsys.readouterr()
    else:
        # The width is that of the tensors; size and ratio are asked for.
        torch.save(checkpoints.read_tensors(tmp_path / 'spark.safetensors'), tmp_path / 'authors.pth')
    shown = {}
    for name, words in (
        ('spark.safetensors', ()),
        ('authors.pth', () if stated else ('--arch', 'test_resnet', '--input-size', SIDE, '--mask-ratio', 0.5)),
    ):
        status, _, err = run(
            capsys,
            'reconstruct',
            '--weights',
            tmp_path / name,
            '--data-root',
            images,
            '--labels',
            'a',
            '--output',
            tmp_path / f'{name}.png',
            *words,
        )
        assert (status, err) == (0, '')
        shown[name] = (tmp_path / f'{name}.png').read_bytes()
    assert shown['spark.safetensors'] == shown['authors.pth']


def test_the_seed_decides_the_masks_and_repeats_the_file(tmp_path, images, capsys):
    weights = save_model(tmp_path / 'spark.safetensors')
    state = torch.get_rng_state()
    contents = []
    for seed in (5, 5, 6):
        output = tmp_path / 'out.png'
        assert (
            run(
                capsys,
                'reconstruct',
                '--weights',
                weights,
                '--data-root',
                images / '0.png',
                '--seed',
                seed,
                '--output',
                output,
            )[0]
            == 0
        )
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_visible_statistics_size_and_ratio_can_be_chosen(tmp_path, images, capsys):
    weights = save_model(tmp_path / 'spark.safetensors')
    status, _, err = run(
        capsys,
        'reconstruct',
        '--weights',
        weights,
        '--data-root',
        images / '0.png',
        '--output',
        tmp_path / 'a.png',
        '--tiles',
        '--input-size',
        128,
        '--mask-ratio',
        0.75,
        '--statistics',
        'visible',
    )
    assert (status, err) == (0, '')
    masked = read(tmp_path / 'a-tiles/000-1-masked.png')
    assert masked.shape == (128, 128, 3)
    assert (masked == [124, 116, 104]).all(-1).mean() == pytest.approx(0.75, abs=0.001)


def test_models_that_normalise_by_other_colours_stand_side_by_side(tmp_path, images, capsys):
    ours = save_model(tmp_path / 'ours.safetensors', mean='[0.5, 0.5, 0.5]', std='[0.2, 0.2, 0.2]')
    other = save_model(tmp_path / 'other.safetensors', 'black_mosaic')
    given = ('reconstruct', '--data-root', images, '--weights', ours, other, '--output', tmp_path / 'out.png')
    assert run(capsys, *given)[::2] == (0, '')


def test_mask_pattern_writes_a_figure_and_its_figures(tmp_path, capsys):
    output = tmp_path / 'new' / 'pattern.png'
    status, out, err = run(
        capsys,
        'mask-pattern',
        '--arch',
        'test_resnet',
        '--input-size',
        128,
        '--layers',
        0,
        1,
        4,
        10,
        '--output',
        output,
    )
    assert (status, err) == (0, '') and out.split() == [str(output), str(output.with_suffix('.csv'))]
    rows = list(csv.DictReader(output.with_suffix('.csv').open()))
    assert [row['convolutions'] for row in rows] == ['0', '1', '4', '10']
    assert {row['visible_sparse'] for row in rows} == {'0.375000'}
    dense = [float(row['visible_dense']) for row in rows]
    assert dense[0] == 0.375 and dense == sorted(dense) and dense[-1] == 1
    # Counted in the figure: 4 tiles of the sparse row and the dense ones, each 128 pixels wide.
    blue = (read(output) == [31, 78, 140]).all(-1).sum() / 128**2
    assert blue == pytest.approx(sum(dense) + 4 * 0.375, abs=1e-5)


FIGURE = ('reconstruct', '--weights', '{tmp}/spark.safetensors')
MODEL = ('reconstruct', '--output', '{tmp}/out.png', '--data-root', '{images}', '--weights')
PATTERN = ('mask-pattern', '--output', '{tmp}/out.png', '--arch')
WRONG = {
    'no weights': ((*MODEL, '{tmp}/none.safetensors'), 'no weights at .*none.safetensors'),
    'encoder alone': ((*MODEL, '{tmp}/encoder.safetensors'), 'encoder.safetensors holds an encoder alone'),
    'damaged': ((*MODEL, '{tmp}/damaged.safetensors'), 'damaged.safetensors is not a complete safetensors file'),
    'header of no sense': ((*MODEL, '{tmp}/nan.safetensors'), 'the header of .*nan.safetensors'),
    'header': ((*MODEL, '{tmp}/header.safetensors'), 'the header of .*header.safetensors'),
    'no architecture': ((*MODEL, '{tmp}/bare.safetensors'), 'does not say its architecture: name it with --arch'),
    'unknown architecture': ((*MODEL, '{tmp}/bare.safetensors', '--arch', 'resnet5'), "unknown timm model 'resnet5'"),
    'other architecture': ((*MODEL, '{tmp}/bare.safetensors', '--arch', 'resnet18'), 'bare.safetensors does not fit'),
    'wrong size': ((*MODEL, '{tmp}/spark.safetensors', '--input-size', '100'), '100 is not a multiple of .* 32'),
    'wrong ratio': ((*MODEL, '{tmp}/spark.safetensors', '--mask-ratio', '1.5'), '--mask-ratio: 1.5'),
    'ratio of zero': ((*MODEL, '{tmp}/spark.safetensors', '--mask-ratio', '0'), '--mask-ratio: 0 is not between'),
    'ratio not a number': ((*MODEL, '{tmp}/spark.safetensors', '--mask-ratio', 'nan'), '--mask-ratio: nan'),
    'sizes differ': ((*MODEL, '{tmp}/spark.safetensors', '{tmp}/large.safetensors'), 'input_size 64, .* --input-size'),
    'labels': ((*MODEL, '{tmp}/spark.safetensors', '--labels', 'a', 'b'), '--labels names 2 methods for 1 files'),
    'same label': ((*MODEL, '{tmp}/spark.safetensors', '{tmp}/spark.safetensors'), 'the same method twice'),
    'no images': ((*FIGURE, '--data-root', '{tmp}/empty', '--output', '{tmp}/out.png'), 'holds no image'),
    'no such folder': ((*FIGURE, '--data-root', '{tmp}/none', '--output', '{tmp}/out.png'), 'does not exist'),
    'no image': ((*FIGURE, '--data-root', '{tmp}/spark.safetensors', '--output', '{tmp}/out.png'), 'nor a list'),
    'device': ((*MODEL, '{tmp}/spark.safetensors', '--device', 'gpu'), "device 'gpu' is not available"),
    'lossy': ((*FIGURE, '--data-root', '{images}', '--output', '{tmp}/out.jpg'), 'only PNG'),
    'below a file': ((*FIGURE, '--data-root', '{images}', '--output', '{tmp}/spark.safetensors/x.png'), '--output'),
    'a folder': ((*FIGURE, '--data-root', '{images}', '--output', '{tmp}/folder.png'), 'folder.png.* not a file'),
    'pattern: architecture': ((*PATTERN, 'resnet5'), "unknown timm model 'resnet5'"),
    'pattern: no convnet': ((*PATTERN, 'vit_tiny_patch16_224'), 'vit_tiny|VisionTransformer'),
    'pattern: layer': ((*PATTERN, 'test_resnet', '--layers', '11'), 'layer 11 does not exist'),
    'pattern: size': ((*PATTERN, 'test_resnet', '--input-size', '100'), '--input-size 100 is not a multiple of 32'),
    'pattern: ratio': ((*PATTERN, 'test_resnet', '--mask-ratio', '0.999'), 'mask_ratio 0.999'),
}


@pytest.fixture(scope='module')
def wrong_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wrong')
    spark = save_model(folder / 'spark.safetensors')
    save_model(folder / 'header.safetensors', input_size='large')
    save_model(folder / 'nan.safetensors', mask_ratio='nan')
    save_model(folder / 'large.safetensors', input_size='128', method='large')
    model = build_spark('test_resnet', SIDE, 0.5, decoder_width=64)
    checkpoints.save(model, folder / 'bare.safetensors', {})
    checkpoints.save(model.encoder.pyramid.network, folder / 'encoder.safetensors', {'arch': 'test_resnet'})
    (folder / 'damaged.safetensors').write_bytes(spark.read_bytes()[:5000])
    (folder / 'empty').mkdir()
    (folder / 'folder.png').mkdir()
    write_png(folder / 'out.png', np.zeros((4, 4, 3), np.uint8))
    return folder


@pytest.mark.parametrize('arguments, named', WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_leaves_the_old_figure(arguments, named, wrong_files, images, capsys):
    before = {path: path.is_file() and path.read_bytes() for path in wrong_files.iterdir()}
    status, out, err = run(capsys, *(text.format(tmp=wrong_files, images=images) for text in arguments))
    assert (status, out) == (2, ''), err
    assert re.fullmatch(f'spark-bench.*: error: .*({named}).*\n', err), err
    assert {path: path.is_file() and path.read_bytes() for path in wrong_files.iterdir()} == before


@pytest.mark.parametrize('foreign', ['a.png', 'a.csv', 'a-tiles/000-0-input.png'])
def test_a_file_of_somebody_else_is_kept_and_an_earlier_figure_replaced(foreign, tmp_path, images, capsys):
    weights, output = save_model(tmp_path / 'spark.safetensors'), tmp_path / 'out/a.png'
    reconstruct = 'reconstruct', '--weights', weights, '--data-root', images, '--tiles', '--output', output
    pattern = 'mask-pattern', '--arch', 'test_resnet', '--input-size', 64, '--layers', 0, 1, '--output', output
    words = pattern if foreign.endswith('.csv') else reconstruct
    for _ in range(2):
        assert run(capsys, *words)[0] == 0
    other = output.parent / foreign
    other.write_bytes((images / '0.png').read_bytes() if foreign.endswith('.png') else b'mine\n')
    before = {path: path.read_bytes() for path in output.parent.rglob('*') if path.is_file()}
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, '') and err.count('\n') == 1 and str(other) in err
    assert {path: path.read_bytes() for path in output.parent.rglob('*') if path.is_file()} == before


def test_help_needs_no_torch():
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'spark_bench', 'visualize', 'reconstruct', '--help'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and '--statistics' in done.stdout, done.stderr
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert 'argparse' in imported and not imported & {'torch', 'matplotlib', 'numpy', 'PIL'}
