"""Nearest neighbours and linear probe against scikit-learn on the same features, and what must not change them."""

import logging
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import Predictions
from spark_bench.probes import linear as linear_probe
from spark_bench.probes import neighbours
from spark_bench.probes.arrays import rank_classes
from spark_bench.probes.linear import fit_linear, linear
from spark_bench.probes.neighbours import knn


def blobs(count=300, others=120, width=24, classes=7, seed=0):
    """Overlapping classes, features of unlike scale: ``(train_NC, labels_N, others_MC, others_M)``."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    labels, other_labels = (np.arange(n) % classes for n in (count, others))
    scale, shift = 10.0 ** rng.uniform(-2, 2, width), rng.normal(size=width)
    train, rest = (
        ((centres[y] + 1.5 * rng.normal(size=(len(y), width))) * scale + shift).astype(np.float32)
        for y in (labels, other_labels)
    )
    return train, labels, rest, other_labels


def theirs_knn(train, labels, others, k, temperature):
    """scikit-learn's shares of votes."""
    model = KNeighborsClassifier(
        k, metric='cosine', algorithm='brute', weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    return model.fit(train.astype(np.float64), labels).predict_proba(others.astype(np.float64))


def theirs_linear(train, labels, c):
    """scikit-learn's ``(scaler, model)`` at its optimum."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of its own deprecations
        model = LogisticRegression(C=c, solver='newton-cholesky', tol=1e-10, max_iter=1000)
        return scaler, model.fit(scaler.transform(train.astype(np.float64)), labels)


@pytest.mark.parametrize('k, temperature', [(1, 0.07), (20, 0.07), (20, 0.005), (200, 1.0), (300, 0.07)])
def test_votes_of_neighbours_are_those_of_scikit_learn(k, temperature):
    train, labels, others, truth = blobs()
    votes = knn(train, labels, others, 7, k, temperature)
    expected = theirs_knn(train, labels, others, k, temperature)
    assert np.abs(votes.numpy() - expected).max() < 1e-9
    assert np.array_equal(rank_classes(votes, 1)[0][:, 0], expected.argmax(axis=1))
    assert 0.2 < (expected.argmax(axis=1) == truth).mean() < 1


def test_neighbours_of_training_images_in_many_pieces_are_the_same(monkeypatch):
    train, labels, others, _ = blobs(2000, 50)
    whole = knn(train, labels, others, 7)
    real = neighbours._normalise
    monkeypatch.setattr(neighbours, '_ROWS', 64)
    called = []
    monkeypatch.setattr(neighbours, '_normalise', lambda x, device: called.append(len(x)) or real(x, device))
    assert torch.allclose(knn(train, labels, others, 7), whole, atol=1e-12)
    assert len(called) > 2000 // 64 and max(called) <= 64


def test_votes_depend_on_no_order_and_no_scale_of_features():
    train, labels, others, _ = blobs()
    votes = knn(train, labels, others, 7)
    order = np.random.default_rng(1).permutation(len(train))
    assert torch.allclose(knn(train[order], labels[order], others, 7), votes, atol=1e-12)
    lengths = np.random.default_rng(2).choice([0.25, 4.0, 16.0], (len(train), 1)).astype(np.float32)
    assert torch.allclose(knn(train * lengths, labels, 8 * others, 7), votes, atol=1e-12)


def test_every_image_twice_and_twice_the_neighbours_are_the_same_votes():
    train, labels, others, _ = blobs()
    twice = knn(np.repeat(train, 2, axis=0), np.repeat(labels, 2), others, 7, k=40)
    assert torch.allclose(twice, knn(train, labels, others, 7, k=20), atol=1e-12)


def test_of_equally_near_images_the_first_ones_count(monkeypatch):
    train = np.tile(np.array([[1, 0], [0, 1]], np.float32), (40, 1))  # 40 equal ones of each kind, in turn
    labels = np.arange(80) // 2 % 3
    for rows in (32768, 7):
        monkeypatch.setattr(neighbours, '_ROWS', rows)
        # Of the first kind, images 0, 2, 4 and 6 come first: classes 0, 1, 2, 0.
        votes = knn(train, labels, train[:1], 3, k=4)
        assert votes.tolist() == [[0.5, 0.25, 0.25]]


def test_more_neighbours_than_images_are_all_images():
    train, labels, others, _ = blobs(14, 10)
    assert torch.equal(knn(train, labels, others, 7, k=500), knn(train, labels, others, 7, k=14))


def test_a_feature_of_zeros_is_as_near_to_all():
    train, labels, others, _ = blobs()
    votes = knn(train, labels, np.zeros_like(others[:2]), 7, k=300)
    assert torch.allclose(votes[0], torch.bincount(torch.tensor(labels), minlength=7).double() / 300, atol=1e-12)


@pytest.mark.parametrize('k, temperature', [(0, 0.07), (5, 0.0), (5, -1.0), (5, float('nan'))])
def test_no_neighbours_or_no_temperature_are_refused(k, temperature):
    with pytest.raises(InputError, match='at least one'):
        knn(*blobs(20, 2)[:3], 7, k, temperature)


@pytest.mark.parametrize('penalty', [1e-1, 1e-3, 1e-5])
def test_linear_classifier_is_scikit_learns_with_the_same_c(penalty):
    train, labels, others, _ = blobs()
    ours = fit_linear(train, labels, 7, penalty, tolerance=3e-9)
    assert ours.converged and ours.gradient <= 3e-9 and ours.iterations > 5
    scaler, model = theirs_linear(train, labels, 1 / (penalty * len(train)))
    weight, bias = ours.weight_PC.numpy(), ours.bias_P.numpy()
    size = np.abs(model.coef_).max()
    # Only differences between classes matter; the penalty fixes them for weights, nothing does for biases.
    assert np.abs(weight - model.coef_).max() < 5e-5 * size
    assert np.abs((bias - bias.mean()) - (model.intercept_ - model.intercept_.mean())).max() < 5e-5 * size
    expected = model.predict_proba(scaler.transform(others.astype(np.float64)))
    assert np.abs(ours.scores(others).softmax(1).numpy() - expected).max() < 2e-4
    assert np.array_equal(rank_classes(ours.scores(others), 1)[0][:, 0], expected.argmax(axis=1))


def test_default_tolerance_predicts_what_scikit_learn_predicts():
    train, labels, others, _ = blobs(width=60, count=150)
    ours = fit_linear(train, labels, 7, 1e-4)
    scaler, model = theirs_linear(train, labels, 1 / (1e-4 * len(train)))
    expected = model.predict(scaler.transform(others.astype(np.float64)))
    assert ours.converged and np.array_equal(rank_classes(ours.scores(others), 1)[0][:, 0], expected)


def test_two_classes_are_scikit_learns_with_twice_the_c():
    train, labels, others, _ = blobs(classes=2)
    ours = fit_linear(train, labels, 2, 1e-2, tolerance=1e-9)
    scaler, model = theirs_linear(train, labels, 2 / (1e-2 * len(train)))
    expected = model.predict_proba(scaler.transform(others.astype(np.float64)))
    assert np.abs(ours.scores(others).softmax(1).numpy() - expected).max() < 1e-5


def test_features_in_pieces_give_the_same_classifier(monkeypatch):
    train, labels, others, _ = blobs()
    whole = fit_linear(train, labels, 7, 1e-2, tolerance=1e-9).scores(others)
    monkeypatch.setattr(linear_probe, 'PIECE', 8 * 24 * 32)  # 32 images
    monkeypatch.setattr(linear_probe, '_KEPT', 0)
    assert torch.allclose(fit_linear(train, labels, 7, 1e-2, tolerance=1e-9).scores(others), whole, atol=1e-6)


def test_scale_order_and_doubling_of_images_change_no_linear_classifier():
    train, labels, others, _ = blobs()

    def probability(train, labels, others):
        return fit_linear(train, labels, 7, 1e-2, tolerance=1e-9).scores(others).softmax(1)

    plain = probability(train, labels, others)
    order = np.random.default_rng(1).permutation(len(train))
    scale = np.exp2(np.arange(24) % 5 - 2).astype(np.float32)
    for changed in (
        (train[order], labels[order], others),
        (train * scale, labels, others * scale),
        (np.repeat(train, 2, axis=0), np.repeat(labels, 2), others),
    ):
        assert torch.allclose(probability(*changed), plain, atol=1e-6)


def test_a_constant_feature_counts_for_nothing():
    train, labels, others, _ = blobs()
    rng = np.random.default_rng(0)
    # Constant but for float32's rounding.
    train, others = (
        np.c_[x, np.float32(3) + rng.choice([0, 2.4e-7], len(x)).astype(np.float32)] for x in (train, others)
    )
    with_it = fit_linear(train, labels, 7, 1e-2, tolerance=1e-9).scores(others)
    without = fit_linear(train[:, :-1], labels, 7, 1e-2, tolerance=1e-9).scores(others[:, :-1])
    assert torch.allclose(with_it.softmax(1), without.softmax(1), atol=1e-5)


def test_a_class_without_training_images_is_never_guessed():
    train, labels, others, _ = blobs()
    seen = labels != 4
    classifier = fit_linear(train[seen], labels[seen], 7, 1e-2)
    scores = classifier.scores(others)
    scaler, model = theirs_linear(train[seen], labels[seen], 1 / (1e-2 * seen.sum()))
    assert (scores[:, 4] == -torch.inf).all() and 4 not in rank_classes(scores, 7)[0]
    expected = model.predict(scaler.transform(others.astype(np.float64)))
    assert np.array_equal(rank_classes(scores, 1)[0][:, 0], expected)
    assert (knn(train[seen], labels[seen], others, 7)[:, 4] == 0).all()
    assert linear(train[seen], labels[seen], 7)[0].present_P.tolist() == [0, 1, 2, 3, 5, 6]


def test_the_penalty_is_the_one_that_serves_held_out_training_images_best():
    train, labels, _, _ = blobs(width=12, count=210)
    classifier, trials = linear(train, labels, 7, seed=3)
    assert [penalty for penalty, _ in trials] == sorted(linear_probe.PENALTIES, reverse=True)
    held_out = linear_probe.draw_subset(labels, 0.2, 3)
    assert (np.bincount(labels[held_out]) == 6).all()
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    for penalty, top1 in trials[:3]:
        scaler, model = theirs_linear(train[kept], labels[kept], 1 / (penalty * len(kept)))
        score = 100 * model.score(scaler.transform(train[held_out].astype(np.float64)), labels[held_out])
        assert top1 == pytest.approx(score)
    best = max(top1 for _, top1 in trials)
    assert classifier.penalty == next(penalty for penalty, top1 in trials if top1 == best)
    assert linear(train, labels, 7, seed=3)[1] == trials and linear(train, labels, 7, seed=4)[1] != trials
    assert len({top1 for _, top1 in trials}) > 1


def test_the_classifier_learns_from_all_images_in_the_end():
    train, labels, others, _ = blobs()
    classifier, _ = linear(train, labels, 7)
    alone = fit_linear(train, labels, 7, classifier.penalty)
    assert torch.allclose(classifier.scores(others).softmax(1), alone.scores(others).softmax(1), atol=1e-2)
    assert torch.equal(classifier.mean_C, alone.mean_C)


def test_a_class_with_one_image_is_kept_and_one_a_class_is_refused():
    train, labels, _, _ = blobs(15, 2)  # two images each, three of class 0
    seen = np.r_[np.arange(7), 7]
    assert linear(train[seen], labels[seen], 7)[0].present_P.tolist() == list(range(7))
    with pytest.raises(InputError, match='no class has two training images'):
        linear(train[:7], labels[:7], 7)
    with pytest.raises(InputError, match='two classes'):
        fit_linear(train[:1], labels[:1], 7, 1e-2)


def test_a_solver_that_was_stopped_says_so(monkeypatch):
    told = []
    monkeypatch.setattr(linear_probe, 'print_log', lambda message, logger, level=None: told.append((message, level)))
    classifier = fit_linear(*blobs()[:2], 7, 1e-5, most_iterations=3)
    assert not classifier.converged and classifier.iterations == 3 and classifier.gradient > 1e-6
    [(message, level)] = told
    assert 'not converged in 3 iterations' in message and level == logging.WARNING


def test_accuracies_are_scikit_learns():
    train, labels, others, truth = blobs()
    scores = fit_linear(train, labels, 7, 1e-2).scores(others)
    found = Predictions(truth, *rank_classes(scores, 5))
    for k in (1, 5):
        assert found.accuracy(k) == pytest.approx(100 * top_k_accuracy_score(truth, scores.numpy(), k=k))


def test_of_equal_scores_the_lower_class_number_comes_first():
    scores = torch.tensor([[0.5, 1.0, 1.0, 0.5], [-torch.inf, 0.0, -torch.inf, 0.0]])
    assert rank_classes(scores, 3)[0].tolist() == [[1, 2, 0], [1, 3, -1]]
    assert rank_classes(scores, 9)[0].shape == (2, 4)
