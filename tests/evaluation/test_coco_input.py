"""Results and truths that cannot be evaluated are refused in one line that names the entry."""

import json

import pytest
from coco_scenes import BOXES, box_mask, evaluate, result, saved, truth

from spark_bench.errors import InputError
from spark_bench.evaluation.coco_input import read_truth

DAMAGES = {
    'no list': lambda p: {'a': 1},
    'no object': lambda p: p[:1] + ['text'],
    'unknown image': lambda p: p[:1] + [p[1] | {'image_id': 77}],
    'unhashable image': lambda p: p[:1] + [p[1] | {'image_id': [1]}],
    'unknown category': lambda p: p[:1] + [p[1] | {'category_id': 3}],
    'no score': lambda p: p[:1] + [{key: value for key, value in p[1].items() if key != 'score'}],
    'score NaN': lambda p: p[:1] + [p[1] | {'score': float('nan')}],
    'score text': lambda p: p[:1] + [p[1] | {'score': '0.5'}],
    'score huge': lambda p: p[:1] + [p[1] | {'score': 10**400}],
    'three numbers': lambda p: p[:1] + [p[1] | {'bbox': [1, 2, 3]}],
    'box NaN': lambda p: p[:1] + [p[1] | {'bbox': [1, 2, 3, float('nan')]}],
    'box negative': lambda p: p[:1] + [p[1] | {'bbox': [1, 2, -3, 4]}],
    'polygon': lambda p: p[:1] + [p[1] | {'segmentation': [[1, 1, 9, 1, 9, 9]]}],
    'mask of another size': lambda p: p[:1] + [p[1] | {'segmentation': box_mask((1, 1, 9, 9), 128)}],
} | {
    f'counts {counts!r}': lambda p, counts=counts: (
        p[:1] + [p[1] | {'segmentation': {'size': [256, 256], 'counts': counts}}]
    )
    for counts in ('', 'PP', 'o' * 50, '@O@O', '000', ' \n', '\u00e9', 'zz0', 5, None)
}


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize('backend', ['fast', 'pycocotools'])
def test_unsound_results_are_refused_in_one_line_by_position(tmp_path, damage, backend):
    predictions = damage([result(*entry, 0.9) for entry in BOXES])
    with pytest.raises(InputError) as refused:
        evaluate(truth(tmp_path, BOXES), predictions, backend)
    message = str(refused.value)
    assert len(message.splitlines()) == 1 and len(message) < 300
    assert ('predictions[1]' if isinstance(predictions, list) else 'predictions is not a list') in message


def test_results_are_read_from_a_file_with_the_same_checks(tmp_path):
    path = tmp_path / 'predictions.json'
    predictions = [result(*entry, 0.9) for entry in BOXES]
    path.write_text(json.dumps(predictions))
    known = truth(tmp_path, BOXES)
    assert evaluate(known, path) == evaluate(known, predictions)
    for content, words in (
        ('[{]', 'not JSON'),
        ('{}', 'not a list'),
        (json.dumps(predictions[:2])[:-2] + ', "score": NaN}]', 'predictions[1]'),
        ('[' * 100000, 'not JSON'),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=r'^[^\n]*$') as refused:
            evaluate(known, path)
        assert words in str(refused.value) and str(path) in str(refused.value)
    with pytest.raises(InputError, match='cannot be read'):
        evaluate(known, tmp_path / 'absent.json')


@pytest.mark.parametrize(
    'damage',
    [
        lambda c: c['annotations'][1].update(segmentation=[]),
        lambda c: c['annotations'][1].update(segmentation=[[1, 2, 3, 4]]),
        lambda c: c['annotations'][1].update(segmentation={'size': [256, 256], 'counts': 'PP'}),
        lambda c: c['annotations'][1].update(segmentation={'size': [256, 256], 'counts': [1, 2]}),
        lambda c: c['annotations'][1].update(image_id=99),
        lambda c: c['annotations'][1].update(bbox=[1, 2, 3]),
        lambda c: c['annotations'][1].pop('segmentation'),
    ],
)
def test_truth_that_cannot_be_evaluated_is_refused_by_position(tmp_path, damage):
    path = truth(tmp_path, BOXES)
    contents = json.loads(path.read_text())
    damage(contents)
    with pytest.raises(InputError, match=r'annotations\[1\]'):
        read_truth(saved(tmp_path, contents))


def test_ids_partly_text_and_partly_numbers_are_refused(tmp_path):
    contents = json.loads(truth(tmp_path, BOXES).read_text())
    contents['images'][1]['id'] = 'p2'
    contents['annotations'][2]['image_id'] = 'p2'
    with pytest.raises(InputError, match=r"images\[1\] has id 'p2'"):
        read_truth(saved(tmp_path, contents))
