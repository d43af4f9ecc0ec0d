"Conversations about phantoms, and the finetune command on them"
import json, os, sys
from pathlib import Path
from cxr_llava.phantom import phantom_xray
from cxr_llava.stages import write_json

SETTINGS = ['--base', 'tiny', '--device', 'cpu', '--epochs', '4', '--batch', '2', '--effective_batch', '4', '--eval_rows', '0', '--evals', '1', '--look_rows', '0']

def conversations(d, n=16):
    "`n` phantoms with short reports of different lengths"
    d, recs = Path(d), []
    for i in range(n):
        side = ('left', 'right')[i % 2]
        phantom_xray(i, size=128, effusion=side).save(d/f'{i}.png')
        recs.append(dict(id=f's{i}', image=f'{i}.png', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
            {'from': 'gpt', 'value': f'FINDINGS:\nThere is a {side} pleural effusion.{" The heart is normal."*(i % 4)}\n\nIMPRESSION:\nEffusion.'}]))
    return write_json(d/'train.json', recs)

def command(data, out, *more): return [sys.executable, '-u', '-m', 'cxr_llava.finetune', *SETTINGS, '--data', str(data), '--out', str(Path(out)/'adapter'), *more]

def env(**more): return {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **more}

def rows(out): return [json.loads(l) for l in (Path(out)/'train_log.jsonl').read_text().splitlines()]

def losses(out): return [(r['step'], r['loss']) for r in rows(out) if 'loss' in r]
