"""How long scoring takes: `python tools/bench_scores.py [--pairs 590] [--studies 2000]`. Processor seconds.

The pairs are phantom reports with words changed at random, none of them read before.
"""
import argparse, os, re, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
import numpy as np, pandas as pd
from cxr_llava.report import labels, phrases
from cxr_llava.report.labels import label_reports, OBSERVATIONS
from cxr_llava.score.clinical import compare_systems
from cxr_llava.xray.phantom import sample_studies, write_report
from cxr_llava.score.clinical import clinical_scores, resample_weights
from cxr_llava.score.metrics import metric_scores, pair_rows
from results import store

def phantom_pairs(n, seed=0):
    "Reports and references of `n` studies, each sentence with a word of its own, so that none is read twice"
    rng = np.random.default_rng(seed)
    def text(study, again):
        r = write_report(study['truth'], np.random.default_rng([study['seed'], again]))
        return re.sub(r'\.(?= |$)', lambda m: f" {''.join(rng.choice(list('bcdfghk'), 5))}.", f"{r['findings']} {r['impression']}")
    studies = sample_studies(n, seed)
    return [text(s, 1) for s in studies], [text(s, 0) for s in studies]

TIMES = [] # Rows of the stored table

def timed(what, f):
    start = time.process_time(); out = f(); took = time.process_time() - start
    print(f'{took:6.2f} s  {what}')
    TIMES.append(dict(what=what, cpu_s=round(took, 2)))
    return out, took

def pairs_job(preds, refs):
    "What a page of one system needs: labels on both sides, BLEU, ROUGE, all with intervals"
    ref_labels, pred_labels = label_reports(refs), label_reports(preds)
    weights = resample_weights(range(len(refs)))
    clinical = clinical_scores(ref_labels, pred_labels, weights=weights)
    return clinical, metric_scores(pair_rows(preds, refs), weights)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--pairs', type=int, default=590); p.add_argument('--studies', type=int, default=2000); p.add_argument('--systems', type=int, default=5)
    a = p.parse_args()
    preds, refs = phantom_pairs(a.pairs)
    labels._read_once.cache_clear()
    (clinical, _), _ = timed(f'{a.pairs} pairs: 14 labels on both sides, BLEU-1..4, ROUGE-1/2/L, intervals of 1,000 resamples '
                             f'(mean {np.mean([len(r.split()) for r in refs]):.0f} words)', lambda: pairs_job(preds, refs))
    print(f'        macro F1 of six {clinical.f1["macro 6"]:.2f}')
    preds, refs = phantom_pairs(2*a.pairs, seed=1)
    labels._read_once.cache_clear(); phrases.lemma.cache_clear()
    _, took = timed(f'labelling {len(refs)} reports', lambda: [labels.label_report(t) for t in refs])
    print(f'        {len(refs)/took:,.0f} reports per processor second, no sentence read before')
    rng = np.random.default_rng(0)
    truth = rng.choice([1, 0, -1, np.nan], (a.studies, len(OBSERVATIONS)), p=[.15, .35, .05, .45])
    systems = {f's{i}': pd.DataFrame(np.where(rng.random(truth.shape) < .05*(i+1), rng.permutation(truth), truth), columns=OBSERVATIONS) for i in range(a.systems)}
    truth, weights = pd.DataFrame(truth, columns=OBSERVATIONS), resample_weights(range(a.studies))
    what = f'{len(OBSERVATIONS)} labels x {a.systems} systems x {a.studies} studies x 1,000 resamples'
    timed(f'{what}: five rates with intervals', lambda: [clinical_scores(truth, s, weights=weights) for s in systems.values()])
    timed(f'{what}: F1 of all pairs of systems, both tests', lambda: compare_systems(truth, systems, rows=None))
    store('scores', 'Processor time of labels and scores, on phantom reports in which every sentence has a word of its own', dict(times=TIMES))

if __name__=='__main__': main()
