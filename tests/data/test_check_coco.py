"""``data check`` of COCO folders, and what ``detect`` refuses: defects by name, garbage never a crash."""

import copy
import json
import random
import re

import pytest
from coco_defects import COCO, change, contents, run

from spark_bench.data.check import check
from spark_bench.data.check.report import KINDS
from spark_bench.data.detection import check_images, open_coco, open_split
from spark_bench.errors import InputError


def test_a_sound_coco_folder_is_fine(capsys, coco):
    status, out, err = run(capsys, coco)
    assert status == 0 and out.splitlines()[-1] == f'{coco}: fine' and not err
    assert out.count('note:') == out.count('problem:') == 0
    assert ['train', '6', '6', '4', '2'] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize('name', COCO)
def test_every_defect_of_coco_is_found_and_named(capsys, coco, name):
    damage, kind, named = COCO[name]
    damage(coco)
    found = check(coco, workers=1).findings
    assert kind in found, found
    assert any(named in f'{file}: {detail}' for file, detail in found[kind].examples), found[kind]
    status, out, err = run(capsys, coco, '--workers', 1)
    assert status == (1 if any(KINDS[one][0] == 'problem' for one in found) else 0) and not err
    verdict = r'\d+ problems? in \d+ files?' if status else 'fine'
    assert re.fullmatch(f'{re.escape(str(coco))}: {verdict}', out.splitlines()[-1])
    assert f'{KINDS[kind][0]}: 1 ' in out or found[kind].count > 1


def test_all_problems_are_told_in_one_go(capsys, coco):
    for damage in ('bbox of text', 'truncated', 'size'):
        COCO[damage][0](coco)
    change(position=3, segmentation=None)(coco)
    status, out, _ = run(capsys, coco)
    assert status == 1 and out.splitlines()[-1] == f'{coco}: 3 problems in 2 files'


FATAL = [
    'a list',
    'entry',
    'id',
    'list as id',
    'duplicate id',
    'image reference',
    'category reference',
    'width',
    'bbox of text',
    'bbox of three',
    'bbox NaN',
    'bbox huge',
    'area',
    'crowd',
    'odd',
    'short',
    'infinite',
    'RLE size',
    'RLE sum',
    'RLE text',
    'RLE cut',
    'same file',
    'not JSON',
    'nested',
    'digits',
]


@pytest.mark.parametrize('name', FATAL)
def test_detect_refuses_what_would_break_training_in_one_line(coco, name):
    COCO[name][0](coco)
    with pytest.raises(InputError) as caught:
        open_coco(coco)
    assert '\n' not in str(caught.value) and 'instances_' in str(caught.value) and ': ' in str(caught.value)


@pytest.mark.parametrize('name', sorted(set(COCO) - {'leak', 'not listed'}))
def test_detect_refuses_what_a_check_calls_a_problem_and_takes_the_rest(coco, name):
    COCO[name][0](coco)
    problems = check(coco, workers=1).problems
    try:
        for split in open_coco(coco):
            check_images(split)
    except InputError as error:
        assert problems and '\n' not in str(error)
    else:
        assert not problems


GARBAGE = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    10**400,
    float('nan'),
    float('inf'),
    '',
    'text',
    '\ud800',
    'a\nb',
    '../x',
    '/etc/passwd',
    [],
    [[]],
    [[[]]],
    {},
    {'size': [48, 64]},
    {'size': 3, 'counts': {}},
    [None] * 4,
    ['a'] * 6,
    [[1, 2, 3, 4, 5, 'x']],
    [10**400] * 4,
    {'size': [48, 64], 'counts': '\x00'},
    [float('nan')] * 4,
    [1e308] * 6,
]


def mutate(rng, made):
    """Replace, drop or repeat something somewhere, up to three times."""
    for _ in range(rng.randrange(1, 4)):
        place = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            what = rng.random()
            if what < 0.7:
                place[key] = copy.deepcopy(rng.choice(GARBAGE))
            elif what < 0.85:
                del place[key]
            elif isinstance(place, list):
                place.insert(key, copy.deepcopy(place[key]))
            break
    return made


def test_no_garbage_in_annotations_ends_in_a_crash(capsys, coco):
    rng, path, statuses, taken = random.Random(0), coco / 'annotations/instances_train.json', set(), 0
    for number in range(400):
        text = json.dumps(mutate(rng, contents(1)))
        if number % 10 == 0:
            cut = rng.randrange(len(text))
            text = text[:cut] + rng.choice(['', '}', ',', '\x00', 'NaN', '"']) + text[cut + 1 :]
        path.write_text(text)
        status, out, err = run(capsys, coco, '--workers', 1, '--no-decode')
        assert status in (0, 1) and not err, (text, err)
        assert out.splitlines()[-1].startswith(f'{coco}: '), text
        statuses.add(status)
        try:
            open_split(coco, 'train')
            taken += 1
        except InputError as error:
            assert 'problem:' in out and status == 1 and '\n' not in str(error), text
    assert statuses == {0, 1} and 10 < taken < 200
