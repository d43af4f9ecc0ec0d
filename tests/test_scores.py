"Label scores against scikit-learn, intervals against simulated truth, paired tests against what they promise"
import numpy as np, pandas as pd, pytest
from sklearn.metrics import precision_recall_fscore_support
from cxr_llava.score import clinical as paired, clinical as scores
from cxr_llava.report.labels import OBSERVATIONS
from cxr_llava.core.files import CXRError
from cxr_llava.score.metrics import metric_differences, pair_rows

def frame(x): return pd.DataFrame(x, columns=OBSERVATIONS)
def labels(n, rng, p=(.2, .3, .1, .4)): return rng.choice([1, 0, -1, np.nan], (n, 14), p=p)
def noisy(x, rate, rng): return np.where(rng.random(x.shape) < rate, labels(len(x), rng), x)

def one_label(y): # the others: never mentioned
    x = np.full((len(y), 14), np.nan); x[:, OBSERVATIONS.index('Edema')] = y
    return frame(x)

@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('policy', ['negative', 'positive', 'definite'])
def test_sklearn(policy, seed):
    rng = np.random.default_rng(seed)
    ref = labels([7, 60, 300, 41, 5][seed], rng, (.05, .3, .05, .6) if seed > 2 else (.2, .3, .1, .4))
    pred = noisy(ref, .2, rng)
    got = scores.clinical_scores(frame(ref), frame(pred), policy)
    yes = (1, -1) if policy == 'positive' else (1,)
    for o,y,p in zip(OBSERVATIONS, ref.T, pred.T):
        if policy == 'definite': keep = np.isin(y, (0, 1)) & np.isin(p, (0, 1)); y, p = y[keep], p[keep]
        y, p = np.isin(y, yes), np.isin(p, yes)
        assert got.n[o] == len(y) and got.support[o] == y.sum()
        if not len(y): assert got.loc[o, list(scores.RATES)].isna().all(); continue
        prec, rec, f1, _ = precision_recall_fscore_support(y, p, average=None, labels=[False, True], zero_division=np.nan)
        np.testing.assert_allclose(got.loc[o, ['precision', 'sensitivity', 'f1', 'specificity']].astype(float), [prec[1], rec[1], f1[1], rec[0]], atol=1e-6)
        assert abs(got.accuracy[o] - (y == p).mean()) < 1e-6
    if policy == 'definite': return
    y, p = np.isin(ref, yes), np.isin(pred, yes)
    for kind,theirs in dict(micro='micro', macro='macro', weighted='weighted', example='samples').items():
        for g,names in scores.GROUPS.items():
            ix = [OBSERVATIONS.index(o) for o in names]
            want = precision_recall_fscore_support(y[:, ix], p[:, ix], average=theirs, zero_division=np.nan)[:3]
            np.testing.assert_allclose(got.loc[f'{kind} {g}', ['precision', 'sensitivity', 'f1']].astype(float), want, atol=1e-6)

def test_undefined_is_counted_and_never_zero():
    t = scores.clinical_scores(one_label([0, 0, np.nan]), one_label([0, np.nan, 0]), weights=scores.resample_weights(range(3)))
    assert t[['f1', 'sensitivity', 'precision']].isna().all().all() and t.undefined['macro 6'] == 6 and t.undefined['example 14'] == 3
    assert t.specificity['Edema'] == 1 and t.f1_undefined['Edema'] == 1000
    empty = scores.clinical_scores(frame(np.empty((0, 14))), frame(np.empty((0, 14))))
    assert empty.f1.isna().all() and (empty.n == 0).all()

def test_intervals_hold_the_truth_about_as_often_as_they_say():
    "Sensitivity .8, specificity .9, one in three ill: the interval of F1 must hold the true F1 in about 95 of 100 test sets"
    rng, held, want = np.random.default_rng(0), [], 2*.8/3/(.8/3 + .1*2/3 + 1/3)
    for s in range(200):
        y = rng.random(250) < 1/3
        p = np.where(y, rng.random(250) < .8, rng.random(250) < .1)
        counts = scores.resample_weights(range(250), 300, s) @ scores.outcomes(one_label(y), one_label(p))[:, OBSERVATIONS.index('Edema')]
        lo, hi, _ = scores.interval(scores.rates(counts)['f1'])
        held.append(lo <= want <= hi)
    assert .9 <= np.mean(held) <= .985, np.mean(held)

def test_patients_are_drawn_whole():
    "Ten X-rays of one patient are nearly one observation: drawing X-rays instead gives an interval that is too narrow"
    rng, widths = np.random.default_rng(0), {}
    ill = np.repeat(rng.random(40) < .5, 10)
    right = np.repeat(rng.random(40) < .8, 10)
    for name,units in dict(patient=np.repeat(np.arange(40), 10), study=np.arange(400)).items():
        t = scores.clinical_scores(one_label(ill), one_label(ill == right), weights=scores.resample_weights(units))
        widths[name] = t.accuracy_hi['Edema'] - t.accuracy_lo['Edema']
    assert widths['patient'] > 2*widths['study']

def test_interval_is_that_of_the_slow_way():
    rng = np.random.default_rng(0)
    y, p = rng.random(200) < .3, rng.random(200) < .3
    w = scores.resample_weights([f'{i:03d}' for i in range(200)], 400, 5)
    fast = scores.clinical_resamples(scores.outcomes(one_label(y), one_label(p)), w)['f1'][:, OBSERVATIONS.index('Edema')]
    slow = [precision_recall_fscore_support(np.repeat(y, c), np.repeat(p, c), average='binary', zero_division=np.nan)[2] for c in w.astype(int)]
    np.testing.assert_allclose(fast, slow, atol=1e-6)

def test_identical_systems_have_p_one_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    ref = labels(120, rng); a, b = noisy(ref, .1, rng), noisy(ref, .3, rng)
    df = paired.compare_systems(frame(ref), dict(a=frame(a), b=frame(b), twin=frame(a)), rows=None)
    twin = df.loc[('a', 'twin')]
    assert (twin[['p_bootstrap', 'p_randomisation', 'p_holm']] == 1).all().all() and (twin[['value', 'lo', 'hi']] == 0).all().all()
    order, names = rng.permutation(120), [f's{i:03d}' for i in range(120)]
    one = paired.compare_systems(frame(ref), dict(a=frame(a), b=frame(b)), names)
    two = paired.compare_systems(frame(ref[order]), dict(a=frame(a[order]), b=frame(b[order])), [names[i] for i in order])
    np.testing.assert_allclose(one.to_numpy(float), two.to_numpy(float))
    swapped = paired.compare_systems(frame(ref), dict(b=frame(b), a=frame(a)), names).to_numpy(float)
    np.testing.assert_allclose(swapped[:, 0], -one.to_numpy(float)[:, 0])
    np.testing.assert_allclose(swapped[:, 4:6], one.to_numpy(float)[:, 4:6])

def test_equal_systems_are_rarely_called_different_and_a_better_one_is_found():
    rng, p, power, edema = np.random.default_rng(0), [], [], OBSERVATIONS.index('Edema')
    for s in range(120):
        ref = (rng.random(150) < .4).astype(float)
        err = lambda rate: one_label(np.where(rng.random(150) < rate, 1 - ref, ref))
        a, b, c = err(.2), err(.2), err(.4)
        x = [scores.outcomes(one_label(ref), o)[:, edema].astype(float) for o in (a, b, c)]
        w, swaps = scores.resample_weights(range(150), 200, s), paired.swap_draws(range(150), 200, s)
        f1 = lambda q, r: (scores.rates(q)['f1'] - scores.rates(r)['f1'])[..., None]
        res = paired.paired_tests(x[0], x[1], f1, w, swaps)
        p.append([res['p_bootstrap'][0], res['p_randomisation'][0]])
        power.append(paired.paired_tests(x[0], x[2], f1, w, swaps)['p_randomisation'][0])
    assert (np.mean(np.array(p) < .05, 0) < .1).all() and (np.mean(np.array(p) < .5, 0) > .3).all()
    assert np.mean(np.array(power) < .05) > .8

def test_randomisation_is_exact_where_all_swaps_can_be_listed():
    "Six studies have 64 swaps: the share of swaps with as large a difference is known"
    y, a, b = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 1, 0, 0, 1]), np.array([0, 0, 1, 0, 1, 0])
    x = [scores.outcomes(one_label(y), one_label(p)).reshape(6, -1).astype(float) for p in (a, b)]
    every = np.array([[i >> k & 1 for k in range(6)] for i in range(64)], float)
    keep = np.arange(14) == OBSERVATIONS.index('Edema')
    differ = lambda p, q: paired.label_differences(p.reshape(*p.shape[:-1], 14, 4), q.reshape(*q.shape[:-1], 14, 4), keep)
    got = paired.paired_tests(*x, differ, scores.resample_weights(range(6), 50), every)['p_randomisation'][OBSERVATIONS.index('Edema')]
    f1 = lambda p: 2*(p & y).sum()/(p.sum() + y.sum())
    d = [abs(f1(np.where(s, b, a)) - f1(np.where(s, a, b))) for s in every.astype(bool)]
    assert got == pytest.approx((1 + sum(v >= abs(f1(a) - f1(b)) - 1e-12 for v in d))/65)

def test_text_differences_and_holm():
    refs = ['No effusion.', 'Mild edema.', 'Enlarged heart.', 'Left pneumothorax.']*6
    x = [pair_rows(p, refs) for p in (refs, refs[::-1])]
    res = paired.paired_tests(*x, metric_differences, scores.resample_weights(range(24)), paired.swap_draws(range(24)))
    assert (res['value'] > 0).all() and res['p_randomisation'][4] < .01
    same = paired.paired_tests(x[0], x[0], metric_differences, scores.resample_weights(range(24)), paired.swap_draws(range(24)))
    assert (same['p_bootstrap'] == 1).all() and (same['p_randomisation'] == 1).all()
    p = np.random.default_rng(0).random(9)
    adjusted = paired.holm(p)
    assert (adjusted >= p).all() and (np.diff(adjusted[np.argsort(p)]) >= 0).all() and adjusted.min() == pytest.approx(min(1, 9*p.min()))

def test_bad_input():
    x = frame(labels(4, np.random.default_rng(0)))
    with pytest.raises(CXRError, match='4 patients named for 4|3 patients named for 4'): paired.compare_systems(x, dict(a=x, b=x), ['p1', 'p2', 'p3'])
    with pytest.raises(CXRError, match='4 reference labels but 3'): paired.compare_systems(x, dict(a=x, b=x[:3]))
    with pytest.raises(CXRError, match='two systems'): paired.compare_systems(x, dict(a=x))
