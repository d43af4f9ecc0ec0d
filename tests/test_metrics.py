"Text metrics against stored values of the tools they name, on their edge cases, and as evaluate metrics that leave nothing behind"
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from cxr_llava.report import text_metrics as tm
from cxr_llava.core.files import CXRError

REF = json.loads((Path(__file__).parent/'metric_references.json').read_text('utf-8'))   # made by tools/make_metric_references.py
PREDS, REFS = map(list, zip(*REF['pairs']))
TOL = 1e-6

def bleus(preds, refs, how): return [tm.bleu(preds, refs, how)[f'bleu{n}'] for n in range(1, 5)]

@pytest.mark.parametrize('how', ['raw', 'r2gen'])
def test_pycocoevalcap(how):
    ref = REF['coco'][how]
    np.testing.assert_allclose(bleus(PREDS, REFS, how), ref['bleu'], atol=TOL)
    np.testing.assert_allclose([bleus([p], [r], how) for p,r in zip(PREDS, REFS)], np.transpose(ref['bleu_each']), atol=TOL)

def test_rouge_score(): np.testing.assert_allclose(tm.rouge_stats(PREDS, REFS), REF['rouge']['plain'], atol=TOL)

def test_edge_cases():
    assert tm.rouge_stats([''], [''])[0, 2] == 0 and bleus([''], [''], 'raw')[0] < TOL
    assert bleus(['normal'], ['normal'], 'raw')[3] < 1e-3
    assert abs(bleus(['no acute disease'], ['no acute disease'], 'raw')[3] - .0316228) < TOL

def test_resampled_scores_are_those_of_the_drawn_pairs():
    rng, counts, each = np.random.default_rng(0), tm.bleu_stats(PREDS, REFS), tm.rouge_stats(PREDS, REFS)
    ix = rng.integers(0, len(PREDS), (5, len(PREDS)))
    drawn = np.stack([np.bincount(i, minlength=len(PREDS)) for i in ix])
    got, rouge_l = tm.bleu_from_stats(drawn @ counts), drawn @ each[:, 2]/len(PREDS)
    for b,i in enumerate(ix):
        p, r = [PREDS[k] for k in i], [REFS[k] for k in i]
        np.testing.assert_allclose([got[f'bleu{n}'][b] for n in range(1, 5)], bleus(p, r, 'r2gen'), atol=1e-12)
        assert abs(rouge_l[b] - tm.rouge(p, r)['rougeL']) < 1e-12

@pytest.mark.parametrize('preds,refs,says', [(['a'], ['a', 'b'], '1 reports against 2'), ([], [], 'no reports'), ('ab', ['a', 'b'], 'two lists'),
                                             (['a', float('nan')], ['a', 'b'], 'report 1 is float'), (['a'], [None], 'reference 0 is NoneType')])
def test_bad_lists_are_refused_by_every_metric(preds, refs, says):
    for f in (tm.bleu, tm.rouge, tm.bleu_stats, tm.rouge_stats):
        with pytest.raises(CXRError, match=says): f(preds, refs)

def test_every_score_names_its_words():
    for score in (tm.bleu, tm.rouge): assert score(PREDS, REFS)['tokenisation']

CACHE = '''
import os, sys
from pathlib import Path
home = Path(sys.argv[1])
import evaluate
from cxr_llava.report import text_metrics as tm
P, R = ['No effusion.', 'Mild edema.'], ['No pleural effusion.', 'Edema.']
both = evaluate.combine([tm.metric_class(m)() for m in ('BleuMetric', 'RougeMetric')])
res = both.compute(predictions=P, references=R)
assert abs(res['rouge1'] - tm.rouge(P, R)['rouge1']) < 1e-12, res
one = tm.BleuMetric()
one.add_batch(predictions=P, references=R)
assert abs(one.compute(how='raw')['bleu1'] - tm.bleu(P, R, 'raw')['bleu1']) < 1e-12
bad = tm.BleuMetric()
try: bad.compute(predictions=P, references=R, how='nonsense')
except tm.CXRError: pass
else: raise SystemExit('no error')
class Broken(tm.metric_class('RougeMetric')):
    def _compute(self, predictions, references): raise RuntimeError('broken')
try: evaluate.combine([Broken(), tm.BleuMetric()]).compute(predictions=P, references=R)
except RuntimeError: pass
else: raise SystemExit('no error')
left = [str(p) for p in home.rglob('*') if p.is_file()]
assert not left, left
print('clean')
'''

def test_as_evaluate_metrics_nothing_is_left_in_a_cache(tmp_path):
    env = os.environ | {'HF_HOME': str(tmp_path/'hf'), 'HF_EVALUATE_CACHE': str(tmp_path/'e'), 'HF_METRICS_CACHE': str(tmp_path/'m'), 'HF_DATASETS_CACHE':
                        str(tmp_path/'d'), 'HF_MODULES_CACHE': str(tmp_path/'mod'), 'HF_HUB_OFFLINE': '1', 'HF_DATASETS_OFFLINE': '1', 'HOME': str(tmp_path)}
    r = subprocess.run([sys.executable, '-c', CACHE, str(tmp_path)], capture_output=True, text=True, env=env, timeout=300)
    assert r.returncode == 0 and r.stdout.strip() == 'clean', r.stderr[-2000:]
