"""How fast reports are written: `python tools/bench_model.py` (tiny model, CPU) or `python tools/bench_model.py gpu` (7B with random weights, CUDA)

cpu   reports per second in batches of 1, 4, 8, 16 against `transformers.pipeline('image-text-to-text')` one X-ray at a time, on the same model,
      the same X-ray files and one core for both, the texts compared; and a follow-up question against asking
      anew, for X-rays as the data stage keeps them, for files 2048 pixels wide, and for a model with LLaVA-1.5's own vision tower
      (576 tokens an X-ray) and random weights, which the tiny one, with 64 tokens, is no measure of.
gpu   the same at 7B in NF4 and fp16, every text as long as its cap (random weights never stop), and how far a step is from reading all weights once.
      `--size small` runs that part with a small model on any machine.
Results are written to bench/results/.
"""
import argparse, json, os, shutil, statistics, sys, tempfile, time, warnings
from pathlib import Path
from cxr_llava.vlm.bases import BASES
from results import store

os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
warnings.filterwarnings('ignore')
QUESTIONS = ['Is there an effusion?', 'Is the heart enlarged?', 'Is there a pneumothorax?']

def one_core():
    "Both sides get one core and one thread"
    import torch
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)

def timed(fn):
    "Result, wall seconds, CPU seconds"
    import torch
    t, c = time.perf_counter(), time.process_time()
    res = fn()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return res, time.perf_counter() - t, time.process_time() - c

def phantoms(folder, n, size=0):
    "Phantom X-rays as files: in the size and form in which the data stage keeps them, or `size` pixels wide, as from a scanner"
    from cxr_llava.xray.read import save_jpeg
    from cxr_llava.xray.drawing import draw_xray
    from cxr_llava.xray.phantom import sample_studies
    paths = []
    for o in sample_studies(n, 4242):
        paths.append(str(Path(folder)/f'{o["uid"]}{size or ""}.jpg'))
        im = draw_xray(o['truth'], o['body'], o['seed'])
        save_jpeg(im.resize((size, round(size*im.height/im.width))) if size else im, paths[-1])
    return paths

def make_pipe(m):
    "The pipeline that users would write, on the same model: one X-ray in, text out"
    from transformers import GenerationConfig, pipeline
    from cxr_llava.xray.read import prepare_xray, read_xray
    from cxr_llava.vlm.chat_format import render_chat
    pipe, tok = pipeline('image-text-to-text', model=m.bare, processor=m.processor), m.processor.tokenizer
    def one(path, turns, limit):
        im = prepare_xray(read_xray(path).image, max(336, m.processor.image_processor.crop_size['height'])).convert('RGB')
        cfg = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=sorted(m.ends) or None, pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id)
        out = pipe(images=[im], text=render_chat(turns, True)[0], generate_kwargs=dict(generation_config=cfg), return_full_text=False)
        return out[0]['generated_text'].strip()
    return one

def first(q): return [{'from': 'human', 'value': f'<image>\n{q}'}]

def bench_reports(m, paths, batches, limit, repeats):
    "Reports per second, one row per way; the median of the repeats"
    from cxr_llava.vlm.chat_format import make_prompt
    pipe, rows = make_pipe(m), []
    ways = {'pipeline': lambda: [pipe(p, first(make_prompt()), limit) for p in paths]}
    ways |= {b: lambda b=b: [r.text for r in m.generate_reports(paths, batch_size=b, max_new_tokens=limit)] for b in batches}
    for fn in ways.values(): fn() if len(paths) < 5 else (pipe(paths[0], first(make_prompt()), limit), m.generate_reports(paths[:2], max_new_tokens=limit))
    runs = {name: [] for name in ways}
    for _ in range(repeats): # in turns: the speed of a machine changes
        for name,fn in ways.items(): runs[name].append(timed(fn))
    texts = {name: r[0][0] for name,r in runs.items()}
    for name,r in runs.items():
        wall, cpu = (statistics.median(o[i] for o in r) for i in (1, 2))
        rows.append(dict(way=str(name), reports=len(paths), wall_s=round(wall, 3), cpu_s=round(cpu, 3), reports_per_s=round(len(paths)/wall, 2),
            same_texts=sum(a == b for a,b in zip(texts[name], texts['pipeline']))))
        tell(rows[-1], rows[0])
    return rows

def tell(row, first):
    row['times_pipeline_wall'], row['times_pipeline_cpu'] = round(first['wall_s']/row['wall_s'], 2), round(first['cpu_s']/row['cpu_s'], 2)
    print(f"{row['way']:>10}: {row['reports_per_s']:7.2f} reports/s, {row['times_pipeline_wall']:6.2f} x wall, {row['times_pipeline_cpu']:6.2f} x CPU, "
        f"{row['same_texts']} of {row['reports']} texts the same", flush=True)

def bench_followup(m, paths, limit, repeats=1):
    "A question after the report: with X-ray and report kept, by the same model anew, and by the pipeline anew"
    from cxr_llava.vlm.generate import _turns
    pipe, times, same = make_pipe(m), {k: [] for k in ('kept', 'kept_first', 'anew', 'anew_first', 'pipeline')}, 0
    for p in paths:
        rep = m.generate_report(p)
        turns = [t for pair in _turns([rep]) for t in pair]
        turns[0] = dict(turns[0], value='<image>\n' + turns[0]['value'])
        for q in QUESTIONS*repeats:
            texts = set()
            def ask(way, fn):
                if way.startswith('anew'): m.forget()
                text, wall, cpu = timed(fn)
                times[way].append((wall, cpu))
                if not way.endswith('first'): texts.add(text)
            def whole(): return m.ask(p, q, [rep], limit)
            def word(): return m.ask(p, q, [rep], 1)
            ask('kept', whole)
            ask('kept_first', word)
            ask('pipeline', lambda: pipe(p, [*turns, {'from': 'human', 'value': q}], limit))
            ask('anew', whole)
            ask('anew_first', word)
            same += len(texts) == 1
    med = {k: dict(zip(('wall', 'cpu'), (statistics.median(o[i] for o in v) for i in (0, 1)))) for k,v in times.items()}
    def ratio(slow, fast, kind): return round(med[slow][kind]/med[fast][kind], 2)
    res = dict(questions=len(times['kept']), same_texts=same, **{f'{k}_{n}_s': round(s, 4) for k,v in med.items() for n,s in v.items()},
        **{f'times_{k}_{n}': ratio(k, 'kept', n) for k in ('anew', 'pipeline') for n in ('wall', 'cpu')}, times_first_word_cpu=ratio('anew_first', 'kept_first', 'cpu'))
    print(f"follow-up: {res['times_pipeline_wall']} x wall, {res['times_pipeline_cpu']} x CPU against the pipeline; {res['times_anew_wall']} x wall, "
        f"{res['times_anew_cpu']} x CPU against the same model anew; first word {res['times_first_word_cpu']} x CPU; {same} of {res['questions']} answers the same", flush=True)
    return res

LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096) # LLaVA-1.5's vision tower
SIZES = {'7b': (BASES['llava-1.5-7b']['config']['text_config'], LARGE), 'tower': (dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, vocab_size=1088), LARGE),
    'small': (dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, vocab_size=1088),
        dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128))} # language model, vision tower

def random_llava(folder, size):
    "A LLaVA with random weights on disk, of one of SIZES; an X-ray is 576 tokens and the words are the tiny model's"
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration
    from cxr_llava.vlm.bases import tiny_dir
    text, vision = SIZES[size]
    tiny = json.loads((tiny_dir()/'config.json').read_text())
    ids = {k: tiny['text_config'][k] for k in ('bos_token_id', 'eos_token_id', 'pad_token_id')}
    cfg = LlavaConfig(text_config=dict(model_type='llama', max_position_embeddings=4096, **text, **ids), vision_config=dict(model_type='clip_vision_model', image_size=336,
        patch_size=14, projection_dim=64, **vision), image_token_index=tiny['image_token_index'], image_seq_length=576, vision_feature_layer=-2)
    torch.manual_seed(0)
    was, dev = torch.get_default_dtype(), 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.set_default_dtype(torch.float16 if dev == 'cuda' else torch.float32)
    try:
        with torch.device(dev): model = LlavaForConditionalGeneration(cfg)
    finally: torch.set_default_dtype(was)
    model.save_pretrained(folder, max_shard_size='4GB')
    for f in tiny_dir().iterdir():
        if f.is_file() and f.name not in ('config.json', 'model.safetensors'): shutil.copy(f, folder)
    p = json.loads((tiny_dir()/'processor_config.json').read_text())
    p['patch_size'], p['image_processor'] = 14, p['image_processor'] | dict(crop_size=dict(height=336, width=336), size=dict(shortest_edge=336))
    (Path(folder)/'processor_config.json').write_text(json.dumps(p))
    return folder

def bandwidth():
    "Bytes per second that this device reads and writes, measured by copying"
    import torch
    n = 1 << (30 if torch.cuda.is_available() else 26)
    a = torch.zeros(n, dtype=torch.uint8, device='cuda' if torch.cuda.is_available() else 'cpu')
    b = torch.empty_like(a)
    b.copy_(a)
    return 2*n*5/timed(lambda: [b.copy_(a) for _ in range(5)])[1]

def bench_steps(m, path, batches, limit, speed):
    "Seconds per token of a batch against the time to read weights and cache once"
    import torch
    from cxr_llava.vlm.chat_format import make_prompt
    params = sum(p.numel()*p.element_size() for n,p in m.bare.named_parameters() if 'language_model' in n and 'embed_tokens' not in n or 'lm_head' in n)
    c, rows = m.bare.config.text_config, []
    width = torch.finfo(next(m.bare.parameters()).dtype).bits//8
    for b in batches:
        ids = [m.family.encode(m.processor, first(make_prompt()), True)[0]]*b
        pixels = m._look(path).pixels.repeat(b, 1, 1, 1)
        one = timed(lambda: m._collect(m._read(ids, pixels), 1))[1]
        full = timed(lambda: m._collect(m._read(ids, pixels), limit))[1]
        step = (full - one)/(limit - 1)
        floor = (params + b*(len(ids[0]) + limit/2)*2*width*c.num_hidden_layers*c.hidden_size)/speed
        rows.append(dict(batch=b, step_s=round(step, 5), floor_s=round(floor, 5), times_floor=round(step/floor, 2), prefill_s=round(one, 4), reports_per_s=round(b/full, 3)))
        print(f"  batch {b}: {1000*step:.1f} ms a step, floor {1000*floor:.1f} ms ({rows[-1]['times_floor']} x), {rows[-1]['reports_per_s']} reports/s", flush=True)
    return rows

def run_cpu(a):
    from cxr_llava.vlm.bases import load_base
    from cxr_llava.vlm.generate import CXRModel
    from cxr_llava.vlm.bases import tiny_adapter
    from cxr_llava.vlm.load import load_model
    one_core()
    m = load_model(tiny_adapter())
    with tempfile.TemporaryDirectory() as d:
        paths = phantoms(d, max(a.n, a.asked))
        res = dict(model=m.info | dict(adapter='tiny_adapter()'), cores=1, threads=1)
        if a.n: res['reports'] = bench_reports(m, paths[:a.n], a.batches, m.max_new_tokens, a.repeats)
        res |= dict(followup_kept_size=bench_followup(m, paths[:a.asked], 32, a.repeats), followup_full_size=bench_followup(m, phantoms(d, a.asked, 2048), 32, a.repeats))
        m = CXRModel(*load_base(str(random_llava(Path(d)/'base', 'tower')), 'fp32'), max_new_tokens=32)
        m._eos = set() # random weights: every text has the same length
        return res | dict(followup_large_tower=bench_followup(m, paths[:2], 16))

def run_gpu(a):
    import torch
    from cxr_llava.vlm.bases import load_base
    from cxr_llava.vlm.generate import CXRModel
    res, precisions = dict(size=a.size, bandwidth_bytes_per_s=round(bandwidth())), ('nf4', 'fp16') if torch.cuda.is_available() else ('fp32',)
    with tempfile.TemporaryDirectory() as d:
        paths = phantoms(d, a.n)
        folder = random_llava(Path(d)/'base', a.size)
        for prec in precisions:
            m = CXRModel(*load_base(str(folder), prec))
            m._eos = set() # random weights: every text has the same length
            print(prec, m.info, flush=True)
            res[prec] = dict(steps=bench_steps(m, paths[0], a.batches, a.tokens, res['bandwidth_bytes_per_s']),
                reports=bench_reports(m, paths, a.batches, a.tokens, a.repeats), followup=bench_followup(m, paths[:2], 16))
            del m
    return res

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', nargs='?', default='cpu', choices=['cpu', 'gpu'])
    p.add_argument('--n', type=int, default=32, help='X-rays')
    p.add_argument('--batches', type=int, nargs='+', default=[1, 4, 8, 16])
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--asked', type=int, default=6, help='X-rays about which questions are asked')
    p.add_argument('--tokens', type=int, default=120, help='length of each text in the gpu part')
    p.add_argument('--size', default='7b', choices=['7b', 'small'])
    p.add_argument('--out', type=Path, help='JSON file; bench/results/model_<what>.json')
    a = p.parse_args()
    res = (run_cpu if a.what == 'cpu' else run_gpu)(a)
    store(a.out or f'model_{a.what}{"_small" if a.what == "gpu" and a.size == "small" else ""}', 'How fast reports are written and follow-up questions answered', res)

if __name__ == '__main__': main()
