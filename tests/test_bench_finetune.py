"The benchmark for a GPU, as far as it can be tried without one"
import json, math, sys
from pathlib import Path
from types import SimpleNamespace
import pytest, torch

@pytest.fixture
def bench(monkeypatch):
    pytest.importorskip('trl'), pytest.importorskip('bitsandbytes')
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]/'tools'))
    import bench_finetune
    return bench_finetune

def test_one_set_up_that_fails_costs_no_other_its_numbers(bench, monkeypatch, tmp_path):
    "Memory that runs out is a result; another error is told at the end, with everything else written"
    def case(name, *a):
        if name == 'course': raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        if name.startswith('TRL'): raise RuntimeError('CUBLAS_STATUS_ALLOC_FAILED')
        return dict(seconds=1., tokens_per_second=13. if name == 'ours nf4' else 10., peak_gib=9.)
    monkeypatch.setattr(bench, 'gpu_case', case)
    monkeypatch.setattr(sys, 'argv', ['bench_finetune.py', '--cuda', '--small', '--out', str(tmp_path)])
    with pytest.raises(SystemExit, match='another reason than memory'): bench.main()
    d = json.loads((tmp_path/'finetune_cuda_small.json').read_text())
    assert 'out of memory' in d['results']['course']['error'] and 'CUBLAS' in d['results']['TRL defaults, nf4']['error']
    assert d['results']['ours nf4']['seconds'] == 1. and d['ours_to_best_rival'] == 1.3

def test_a_loss_that_overflows_is_no_number_in_the_result(bench, monkeypatch, tmp_path):
    "Random weights in fp16 may overflow; the course project's logits at all positions are counted"
    monkeypatch.setattr(bench, 'ours', lambda *a: SimpleNamespace(losses=[math.nan], steps=lambda: [(4., 4.)]))
    trims, recs, res = [], bench.studies(tmp_path, 2, 20), {}
    monkeypatch.setattr(bench, 'step_flops', lambda shape, tokens, labels, every, trim: trims.append(trim) or 1e12)
    for name in ('ours fp16', 'course'): res[name] = bench.gpu_case(name, bench.config_of(True), torch.device('cpu'), recs, 2, True)
    assert res['ours fp16']['loss'] is None and res['ours fp16']['seconds'] == 1.
    assert trims == [True, False]
    json.dumps(res, allow_nan=False)
