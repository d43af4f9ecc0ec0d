"""How long scoring stored predictions again takes: `python tools/bench_eval.py [--n 3000]`. No model, no network, one core."""
import argparse, os, random, resource, tempfile, time
for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')
from pathlib import Path
from types import SimpleNamespace
from results import store

def write_studies(n, run):
    "A test split of `n` phantom reports, two studies per patient; the pictures are grey, since nobody looks at them"
    import numpy as np, pandas as pd
    from PIL import Image
    from cxr_llava.xray.phantom import sample_truth, write_report
    from cxr_llava.vlm.chat_format import format_answer, make_prompt
    from cxr_llava.core.files import write_json
    (run/'images').mkdir(parents=True)
    rng, recs = np.random.default_rng(0), []
    for i in range(n):
        r = write_report(sample_truth(rng), rng)
        Image.new('L', (64, 64), i % 256).save(run/f'images/{i}.png')
        turns = [{'from': 'human', 'value': f'<image>\n{make_prompt()}'}, {'from': 'gpt', 'value': format_answer(r['findings'], r['impression'])}]
        recs.append(dict(id=f's{i}', image=f'images/{i}.png', conversations=turns))
    write_json(run/'test.json', recs)
    pd.DataFrame(dict(study_id=[o['id'] for o in recs], patient_id=[f'p{i//2}' for i in range(n)], source='phantom', views=[['PA' if i % 3 else 'AP'] for i in range(n)],
        images=[[o['image']] for o in recs])).to_parquet(run/'studies.parquet')

class Writer:
    "A model that needs no weights: three of four sentences of a report that belongs to the X-ray"
    info, max_new_tokens = dict(base='none', adapter='none', adapter_hash='none'), 256
    def __init__(self, run):
        from cxr_llava.score.systems import read_items
        self.texts = {str(o['images']): o['reference'] for o in read_items(run/'test.json')}
        self.any = list(self.texts.values())
    def generate_reports(self, srcs, batch_size=8, prompts=None, max_new_tokens=None):
        def one(s):
            text = self.texts.get(str(s)) or self.any[hash(str(s)) % len(self.any)]
            rng = random.Random(text)
            return SimpleNamespace(text='\n'.join('. '.join(o for o in line.split('. ') if rng.random() < .75 or line.endswith(':')) for line in text.split('\n')), stopped=True)
        return [one(s) for s in srcs]

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--n', type=int, default=3000, help='studies')
    args = p.parse_args()
    import contextlib, io
    from cxr_llava.eval import EvalConfig, evaluate
    with tempfile.TemporaryDirectory() as d:
        run = Path(d)
        write_studies(args.n, run)
        cfg = EvalConfig(run=d, data_path=str(run/'test.json'), baselines='constant', batch_size=64)
        def again():
            with contextlib.redirect_stdout(io.StringIO()): return evaluate(cfg, model=Writer(run))
        again()
        t, c = time.time(), time.process_time()
        m = again()
        t, c = time.time() - t, time.process_time() - c
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6
    print(f'{len(m["systems"])} systems x {args.n} stored reports: 14 labels, BLEU, ROUGE, sections, groups, 1,000-fold intervals, paired tests, page')
    print(f'{c:.1f} s of CPU time, {t:.1f} s in all, {peak:.1f} GB')
    store('eval_again', 'Scoring stored predictions again: 14 labels, BLEU, ROUGE, sections, groups, 1,000-fold intervals, paired tests, page',
        dict(systems=len(m['systems']), studies=args.n, cpu_s=round(c, 1), wall_s=round(t, 1), peak_gb=round(peak, 2)))

if __name__ == '__main__': main()
