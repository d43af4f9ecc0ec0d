"Model metrics against stand-ins with the interfaces of their packages (f1chexbert, radgraph 0.1.18, bert-score 0.3.13, RaTEScore 0.6, green_score)"
import math, sys, types
import numpy as np, pytest
from cxr_llava.score import model_metrics as mm
from cxr_llava.core.files import CXRError

P, R = ['Small effusion.', 'No effusion.', '', 'Edema.'], ['Effusion.', 'Small effusion.', 'Clear.', 'Edema.']

class F1CheXbert:
    def __init__(self, *, refs_filename=None, hyps_filename=None, device='cuda', batch_size=64): assert device in ('cpu', 'cuda')
    def get_label(self, report, mode='rrg'):
        assert mode == 'rrg' and '\n' not in report
        row = dict.fromkeys(mm.CHEXBERT_ORDER, 0)
        if 'effusion' in report.lower() and 'No' not in report: row['Pleural Effusion'] = 1
        if 'Edema' in report: row['Edema'] = 1
        return list(row.values())

class F1RadGraph:
    def __init__(self, reward_level, model_type=None, **kw): assert reward_level == 'all' and model_type == 'radgraph-xl'
    def __call__(self, refs, hyps):
        assert all(refs) and all(hyps)
        each = [[float(h == r) for h,r in zip(hyps, refs)] for _ in range(3)]
        return tuple(map(np.mean, each)), each, [], []

class BERTScorer:
    def __init__(self, model_type=None, num_layers=None, batch_size=64, nthreads=4, all_layers=False, idf=False, idf_sents=None, device=None, lang=None,
                 rescale_with_baseline=False, baseline_path=None, use_fast_tokenizer=False):
        assert (model_type, lang, rescale_with_baseline, idf) == ('distilroberta-base', 'en', True, False)
    def score(self, cands, refs, verbose=False, batch_size=64, return_hash=False):
        import torch
        f = torch.tensor([float(c == r) for c,r in zip(cands, refs)])
        return f*0, f*0, f

class RaTEScore:
    def __init__(self, bert_model='a', eval_model='b', batch_size=1, use_gpu=True, visualization_path=None, affinity_matrix='long'): pass
    def compute_score(self, candidate_list, reference_list):
        assert isinstance(candidate_list, list) and isinstance(reference_list, list)
        return [float(c == r) for c,r in zip(candidate_list, reference_list)]

class GREEN:
    def __init__(self, model_name=None, output_dir='.', cpu=False): assert model_name and output_dir != '.'
    def __call__(self, refs, hyps): return 0., 0., [None if h != r else 1. for h,r in zip(hyps, refs)], 'summary', None

STUBS = dict(f1chexbert=F1CheXbert, radgraph=F1RadGraph, bert_score=BERTScorer, RaTEScore=RaTEScore, green_score=GREEN)

@pytest.fixture(autouse=True)
def fresh():
    def clear():
        for f in (mm._chexbert, *mm._SCORERS.values()): f.cache_clear()
    clear(); yield; clear()

@pytest.fixture
def stubs(monkeypatch):
    for name,cls in STUBS.items(): monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**{cls.__name__: cls}))

def test_every_metric_through_its_package(stubs):
    res = {name: mm.model_metric(name, P, R) for name in mm.MODEL_METRICS}
    assert all(r['n'] == 4 and r['definition'] for r in res.values())
    # effusion 1 found, 1 missed; edema found: micro 2*2/(2*2+1)
    assert res['chexbert']['chexbert_micro_f1_14'] == pytest.approx(.8) and res['chexbert']['chexbert_macro_f1_5'] == pytest.approx((2/3 + 1)/2)
    for name,key in (('radgraph', 'radgraph_partial'), ('bertscore', 'bertscore'), ('ratescore', 'ratescore')):
        assert res[name][key] == pytest.approx(.25) and res[name]['undefined'] == 0          # one of four is word for word; an empty one counts 0
    assert res['green']['green'] == pytest.approx(.5) and res['green']['undefined'] == 2

def test_chexbert_labels_have_our_order_and_can_be_scored(stubs):
    df = mm.chexbert_labels(['Small\neffusion.', 'Edema.'])
    assert list(df.columns) == mm.OBSERVATIONS and df['Pleural Effusion'].tolist() == [1, 0] and df.Edema.tolist() == [0, 1] and df['No Finding'].sum() == 0

@pytest.mark.parametrize('name', mm.MODEL_METRICS)
def test_absent_package_is_one_sentence(name, monkeypatch):
    monkeypatch.setitem(sys.modules, mm.MODEL_METRICS[name]['package'], None)
    with pytest.raises(CXRError) as e: mm.model_metric(name, P, R)
    said = str(e.value)
    assert 'pip install' in said and name in said and '\n' not in said and 'weights' in said

@pytest.mark.parametrize('name', mm.MODEL_METRICS)
def test_absent_weights_are_one_sentence(name, monkeypatch):
    class Broken:
        def __init__(self, *a, **k): raise OSError('We couldn\'t connect to the hub\nand more\nlines')
    package = mm.MODEL_METRICS[name]['package']
    monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(**{STUBS[package].__name__: Broken}))
    with pytest.raises(CXRError) as e: mm.model_metric(name, P, R)
    assert 'could not be loaded' in str(e.value) and 'connect to the hub' in str(e.value) and '\n' not in str(e.value)

def test_all_pairs_empty_and_unreadable(stubs):
    assert mm.model_scores([''], ['x'], 'radgraph')['radgraph'].tolist() == [0]
    assert math.isnan(mm.model_metric('green', ['a'], ['b'])['green'])
    with pytest.raises(CXRError, match='2 reports against 1'): mm.model_metric('green', ['a', 'b'], ['b'])

def test_nothing_heavy_is_imported_with_the_module():
    import subprocess
    code = "import sys, cxr_llava.score.model_metrics; print([m for m in ('torch', 'transformers', 'f1chexbert', 'radgraph', 'bert_score') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
