"""How fast a training step is, side by side in one run. `python tools/bench_finetune.py [--small]`

Without a GPU: the tiny model, equal settings, equal tokens, equal loss: our step against the same step written as plain PyTorch, and
against TRL's `SFTTrainer`. Blocks of steps take turns, so that a busy computer is unfair to nobody; ratios are medians over the rounds, of
CPU time and of wall time.

With a GPU: LLaVA-1.5-7B at full size with random weights built from its config, memory capped to what a T4 has: ours in NF4 and fp16, with and without
recomputed layers, against the course project's set-up (fp16, `device_map="auto"`, all logits, adapters on the vision tower too) and TRL's defaults.
`--cuda --small` does the same with a small config on whatever is there, also a CPU, to see that it runs.

Results go to `bench/results/` with versions and device."""
import argparse, contextlib, gc, json, math, os, statistics, sys, tempfile, time, warnings
from pathlib import Path
from types import SimpleNamespace
from results import ROOT, store

os.environ.setdefault('HF_HUB_OFFLINE', '1'), os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
warnings.simplefilter('ignore')
import torch
from cxr_llava.train.batch import can_trim, Collator, encode_records, fill_store, XRayStore
from cxr_llava.xray.read import prepare_xray, read_xray
from cxr_llava.vlm.bases import load_base, quiet
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.train.plan import local_gpus, memory, model_shape, step_flops, study_seconds
from cxr_llava.vlm.chat_format import format_answer, render_chat
from cxr_llava.train.loop import add_lora, make_trainer, recompute, Stream, trainer_args

T4_GIB, SETTINGS = 14.5, dict(lora_r=16, alpha=32, dropout=0., lr=1e-4, schedule='linear', warmup=0., seed=0)

def note(msg): print(msg, flush=True)

def studies(folder, n, answers=40):
    "Phantoms with reports of about so many words"
    recs = []
    for i in range(n):
        side = ('left', 'right')[i % 2]
        p = Path(folder)/f'{i}.png'
        if not p.exists(): phantom_xray(i, size=128, effusion=side).save(p)
        text = f'There is a {side} pleural effusion. ' + 'The heart is normal. '*max(1, (answers - 12)//5)
        recs.append(dict(id=str(i), image=str(p), conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
            {'from': 'gpt', 'value': format_answer(text.strip(), f'{side.title()} effusion.')}]))
    return recs

class Ticks:
    "Wall and CPU time at the end of each optimiser step"
    def __init__(self): self.at, self.losses = [(time.perf_counter(), time.process_time())], []
    def tick(self):
        if torch.cuda.is_available(): torch.cuda.synchronize()
        self.at.append((time.perf_counter(), time.process_time()))
    def steps(self): return [(b[0] - a[0], b[1] - a[1]) for a,b in zip(self.at[1:], self.at[2:])] # the first step warms up

def as_callback(t):
    from transformers import TrainerCallback
    class Timer(TrainerCallback):
        def on_step_end(self, args, state, control, **kw): t.tick()
        def on_log(self, args, state, control, logs=None, **kw): 'loss' in (logs or {}) and t.losses.append(logs['loss'])
    return Timer()

def settings(effective): return SimpleNamespace(**SETTINGS, effective_batch=effective)

# One block of steps with each

def ours(pm, collate, rows, steps, micro, effective, precision='fp32', capability=None):
    "The package's Trainer"
    t = Ticks()
    with tempfile.TemporaryDirectory() as d:
        args = trainer_args(settings(effective), d, steps, micro, effective//micro, precision, capability)
        stream = Stream(rows, [i % len(rows) for i in range(steps*effective)])
        trainer = make_trainer(pm, args, stream, [], collate, SimpleNamespace(), as_callback(t))
        with quiet(): trainer.train()
    return t

def plain(pm, collate, rows, steps, micro, effective):
    "The same step as a loop anybody would write"
    t, passes = Ticks(), effective//micro
    params = [p for p in pm.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=SETTINGS['lr'], weight_decay=0.)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: max(0, (steps - s)/steps))
    stream = [rows[i % len(rows)] for i in range(steps*effective)]
    pm.train()
    for s in range(steps):
        step = stream[s*effective:(s + 1)*effective]
        batches = [collate(step[i*micro:(i + 1)*micro]) for i in range(passes)]
        n, total = sum(int((b['labels'][:, 1:] != -100).sum()) for b in batches), 0.
        for b in batches:
            loss = pm(**b, num_items_in_batch=n, use_cache=False).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step(), sched.step(), opt.zero_grad()
        t.losses.append(total), t.tick()
    return t

def trl(pm, processor, recs, steps, micro, effective, defaults=False, cuda=False):
    "TRL's `SFTTrainer` on the same text and X-rays"
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    def row(o):
        text, spans = render_chat(o['conversations'])
        a = spans[0][0]
        bos = processor.tokenizer.bos_token or ''
        if processor.tokenizer('x')['input_ids'][0] != processor.tokenizer.bos_token_id: bos = ''
        return dict(prompt=bos + text[:a], completion=text[a:], images=[prepare_xray(read_xray(o['image']).image, 336).convert('RGB')]) # the pixels ours sees
    data = Dataset.from_list([row(recs[i % len(recs)]) for i in range(steps*effective)])
    t = Ticks()
    with tempfile.TemporaryDirectory() as d:
        kw = dict(output_dir=d, per_device_train_batch_size=micro, gradient_accumulation_steps=effective//micro, max_steps=steps, report_to='none', disable_tqdm=True,
            save_strategy='no', logging_steps=1, max_length=None, use_cpu=not cuda, train_sampling_strategy='sequential')
        if not defaults: kw |= dict(learning_rate=SETTINGS['lr'], lr_scheduler_type='linear', weight_decay=0., max_grad_norm=1., optim='adamw_torch', bf16=False,
            gradient_checkpointing=False, seed=0)
        with quiet(): trainer = SFTTrainer(model=pm, args=SFTConfig(**kw), train_dataset=data, processing_class=processor, callbacks=[as_callback(t)])
        from transformers import PrinterCallback
        trainer.remove_callback(PrinterCallback)
        with quiet(), contextlib.redirect_stdout(sys.stderr): trainer.train()
        first = next(iter(trainer.get_train_dataloader()))
    t.tokens = int(first['attention_mask'].sum()), int((first['labels'] != -100).sum())
    t.how = {k: getattr(trainer.args, k) for k in ('bf16', 'fp16', 'gradient_checkpointing', 'optim')}
    return t

# Without a GPU

def cpu_part(rounds, steps, micro, effective):
    "Ratios of the tiny model's steps"
    model, processor = load_base('tiny', 'fp32', 'cpu')
    torch.manual_seed(0)
    pm = add_lora(model, settings(effective))
    start = {k: v.clone() for k,v in pm.state_dict().items() if 'lora' in k}
    with tempfile.TemporaryDirectory() as d:
        recs = studies(d, 32)
        rows = encode_records(recs, processor)
        store = XRayStore(processor, 'features')
        fill = time.process_time()
        fill_store(store, [r['images'][0] for r in rows], model)
        fill = (time.process_time() - fill)/len(rows)
        kept = Collator(store, processor.tokenizer.pad_token_id)
        kept.trim = can_trim(pm, kept, rows)
        read = Collator(XRayStore(processor), processor.tokenizer.pad_token_id, kept.trim)
        todo = {'ours': lambda: ours(pm, kept, rows, steps, micro, effective), 'plain PyTorch': lambda: plain(pm, kept, rows, steps, micro, effective),
            'ours, X-rays read each time': lambda: ours(pm, read, rows, steps, micro, effective), 'TRL SFTTrainer': lambda: trl(pm, processor, recs, steps, micro, effective)}
        got, losses, tokens = {k: [] for k in todo}, {}, None
        for i in range(rounds):
            for k in (list(todo) if i % 2 == 0 else list(todo)[::-1]):
                pm.load_state_dict(start, strict=False)
                t = todo[k]()
                got[k].append([statistics.median(c) for c in zip(*t.steps())])
                losses.setdefault(k, t.losses)
                tokens = getattr(t, 'tokens', tokens)
                note(f'round {i + 1}: {k:28} {got[k][-1][1]*1e3:7.1f} ms CPU, {got[k][-1][0]*1e3:7.1f} ms wall a step, loss {t.losses[0]:.4f} -> {t.losses[-1]:.4f}')
    mine = sum(len(r['ids']) for r in rows[:micro]), sum(sum(t != -100 for t in r['labels']) for r in rows[:micro])
    def ratio(a, b, j): return round(statistics.median(x[j]/y[j] for x,y in zip(got[a], got[b])), 3)
    worst = {k: max(abs(a - b) for a,b in zip(losses[k], losses['plain PyTorch'])) for k in todo}
    return dict(model='tiny', steps=steps, rounds=rounds, micro=micro, effective=effective, tokens=dict(ours=mine, trl=tokens),
        loss_difference={k: round(v, 6) for k,v in worst.items()}, seconds={k: dict(cpu=round(statistics.median(x[1] for x in v), 5), wall=round(statistics.median(x[0] for x in v), 5)) for k,v in got.items()},
        seconds_to_look_at_an_xray_once=round(fill, 5),
        ratios={w: dict(ours_to_plain=ratio('ours', 'plain PyTorch', j), trl_to_ours=ratio('TRL SFTTrainer', 'ours', j),
            trl_to_ours_reading_each_time=ratio('TRL SFTTrainer', 'ours, X-rays read each time', j)) for j,w in ((1, 'cpu'), (0, 'wall'))})

# With a GPU

def config_of(small):
    "LLaVA-1.5-7B's config, or a small one of the same kind"
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    if not small: return LlavaConfig(text_config=dict(model_type='llama', vocab_size=32064), image_seq_length=576)
    return LlavaConfig(vision_config=CLIPVisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14, projection_dim=64),
        text_config=LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, vocab_size=1100), image_seq_length=16)

def processor_of(config):
    "The tiny model's tokenizer with an image processor of the config's size"
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    p = load_processor(tiny_dir())
    v = config.vision_config
    p.image_processor.size, p.image_processor.crop_size = {'shortest_edge': v.image_size}, {'height': v.image_size, 'width': v.image_size}
    p.patch_size, config.image_token_index = v.patch_size, p.image_token_id
    config.image_token_id = p.image_token_id
    return p

def build(config, precision, device):
    "A LLaVA with random weights, made where it is used; in nf4 the language model's matrices are packed one by one"
    from accelerate import init_empty_weights
    from transformers import LlavaForConditionalGeneration
    dtype = torch.float16 if device.type == 'cuda' else torch.float32
    with init_empty_weights(include_buffers=False): m = LlavaForConditionalGeneration(config)
    def weights(*shape): return torch.randn(*shape, device=device, dtype=dtype)*.02
    for name,mod in list(m.named_modules()):
        if precision == 'nf4' and 'language_model' in name and isinstance(mod, torch.nn.Linear):
            import bitsandbytes as bnb
            new = bnb.nn.Linear4bit(mod.in_features, mod.out_features, bias=False, compute_dtype=dtype, compress_statistics=True, quant_type='nf4', device='meta')
            new.weight = bnb.nn.Params4bit(weights(mod.out_features, mod.in_features).cpu(), requires_grad=False, compress_statistics=True, quant_type='nf4').to(device)
            parent, _, leaf = name.rpartition('.')
            setattr(m.get_submodule(parent), leaf, new)
            continue
        for k,p in list(mod.named_parameters(recurse=False)):
            if p.is_meta: setattr(mod, k, torch.nn.Parameter(torch.ones(p.shape, device=device, dtype=dtype) if 'norm' in name and k == 'weight' else weights(*p.shape), requires_grad=False))
    m.to(device) if precision != 'nf4' else [b.data.to(device) for b in m.buffers()]
    for mod in m.modules():
        for k,b in list(mod.named_buffers(recurse=False)): mod.register_buffer(k, b.to(device), persistent=False)
    m.is_loaded_in_4bit = precision == 'nf4' # how PEFT knows
    m.cxr = dict(base='random', base_hash='', precision=precision, device=str(device))
    return m.eval().requires_grad_(False)

def everywhere(model):
    "The course project's adapter: every q_proj and v_proj, the vision tower's too"
    from peft import LoraConfig, get_peft_model
    with quiet(): pm = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0., target_modules=['q_proj', 'v_proj']))
    pm.cxr = model.cxr
    return pm

class AllLabels(Collator):
    "The course project's batch: a label at every token, logits everywhere"
    def __call__(self, rows):
        x = super().__call__(rows)
        return dict(x, labels=x['input_ids'].clone())

def gpu_case(name, config, device, recs, steps, small):
    "One set-up: seconds and tokens a second of its steps, peak memory"
    micro, effective, cuda = 1, 4, device.type == 'cuda'
    precision = 'fp16' if name in ('ours fp16', 'course') or name.endswith('fp16') else 'nf4'
    if cuda: torch.cuda.empty_cache(), torch.cuda.reset_peak_memory_stats()
    processor = processor_of(config)
    model = build(config, precision, device)
    pm = everywhere(model) if name == 'course' else add_lora(model, settings(effective))
    rows = encode_records(recs, processor, 4096)
    if name.startswith('TRL'): t = trl(pm, processor, recs, steps, micro, effective, defaults=cuda, cuda=cuda)
    else:
        kind = AllLabels if name == 'course' else Collator
        collate = kind(XRayStore(processor), processor.tokenizer.pad_token_id, name != 'course')
        if 'recomputed' in name: recompute(pm, 2 if '2nd' in name else 1)
        t = ours(pm, collate, rows, steps, micro, effective, precision if cuda else 'fp32', (7, 5) if cuda else None)
    n, labels = (sum(f(r) for r in rows)/len(rows) for f in (lambda r: len(r['ids']), lambda r: sum(t != -100 for t in r['labels'])))
    how, trim, shape = getattr(t, 'how', {}), name != 'course', model_shape(config.to_dict())
    secs, every = statistics.median(s[0] for s in t.steps())/effective, 1 if 'all layers' in name or how.get('gradient_checkpointing') else 2 if '2nd' in name else 0
    flops = step_flops(shape, n, labels, every, trim)
    plan = memory(shape, precision, micro, int(n), int(labels), dropout=False, every=every, trim=trim, on_cpu=not cuda)
    floor = study_seconds(shape, local_gpus()[0], precision, micro, n, labels, every, trim, efficiency=1)
    return dict(seconds=round(secs, 4), tokens_per_second=round(n/secs, 1), tflops=round(flops/secs/1e12, 3), tokens=round(n), labels=round(labels),
        share_of_floor=round(floor/secs, 3) if cuda else None, planned_gib=round(plan['total'], 2), peak_gib=round(torch.cuda.max_memory_reserved()/2**30, 2) if cuda else None,
        loss=round(t.losses[-1], 3) if math.isfinite(t.losses[-1]) else None, **how) # random weights in fp16 may overflow

CASES = ['ours nf4', 'ours nf4, every 2nd layer recomputed', 'ours nf4, all layers recomputed', 'ours fp16', 'ours, all layers recomputed, fp16', 'course',
    'TRL defaults, nf4', 'TRL defaults, fp16']

def gpu_part(small, steps):
    "Every set-up in turn, each from nothing"
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    total = torch.cuda.get_device_properties(0).total_memory/2**30 if device.type == 'cuda' else None
    if total: torch.cuda.set_per_process_memory_fraction(min(1., T4_GIB/total))
    res = {}
    with tempfile.TemporaryDirectory() as d:
        recs = studies(d, 8, 40 if small else 200)
        for name in CASES:
            try: res[name] = gpu_case(name, config_of(small), device, recs, steps, small)
            except torch.cuda.OutOfMemoryError: res[name] = dict(error=f'out of memory at {T4_GIB} GiB')
            except Exception as e: res[name] = dict(error=f'{type(e).__name__}: {str(e)[:300]}', failed=True) # one set-up must not cost the numbers of the others
            note(f'{name:44} {res[name]}')
            gc.collect()
            if total: torch.cuda.empty_cache()
    good = {k: v for k,v in res.items() if 'seconds' in v}
    rivals = [v['tokens_per_second'] for k,v in good.items() if k.startswith('TRL') or 'all layers' in k] # TRL recomputes all layers by default, as `gradient_checkpointing` says
    best = good.get('ours nf4', {}).get('tokens_per_second')
    return dict(model='small' if small else 'LLaVA-1.5-7B, random weights', cap_gib=T4_GIB if total else None, device_gib=total, steps=steps, results=res,
        ours_to_best_rival=round(best/max(rivals), 3) if best and rivals else None, spare_gib=round(T4_GIB - good['ours nf4']['peak_gib'], 2) if total and 'ours nf4' in good else None)

def profile(steps, micro, effective):
    "Where the CPU time of TRL's step goes and where ours does: seconds by part"
    import cProfile, pstats
    model, processor = load_base('tiny', 'fp32', 'cpu')
    pm = add_lora(model, settings(effective))
    parts = {'forward': 'modeling_llava.py', 'backward': 'run_backward', 'vision tower': 'modeling_clip.py', 'image processing': 'image_process', 'image decoding': 'ImageFile', 'tokenizer': 'tokenization_utils'}
    with tempfile.TemporaryDirectory() as d:
        recs = studies(d, 32)
        pr = cProfile.Profile()
        pr.enable(), trl(pm, processor, recs, steps, micro, effective), pr.disable()
    st = pstats.Stats(pr).sort_stats('cumulative').stats
    return {k: round(max((v[3] for f,v in st.items() if pat in f'{f[0]} {f[2]}'), default=0)/steps, 5) for k,pat in parts.items()}

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--small', action='store_true', help='a few steps; with --cuda a small config')
    p.add_argument('--cuda', action='store_true', help='the part for a GPU; done by itself when there is one')
    p.add_argument('--rounds', type=int, help='how often each takes its turn')
    p.add_argument('--steps', type=int, help='optimiser steps in a block')
    p.add_argument('--out', type=Path, default=ROOT/'bench/results')
    a = p.parse_args()
    import bitsandbytes, trl as t # missing, they would be missed at the end
    gpu = a.cuda or torch.cuda.is_available()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    if gpu: res, name = gpu_part(a.small, a.steps or (3 if a.small else 12)), 'finetune_cuda_small' if a.small else 'finetune_cuda'
    else:
        res, name = cpu_part(a.rounds or (1 if a.small else 5), a.steps or (4 if a.small else 12), 16, 16), 'finetune_cpu'
        if not a.small: res['trl_seconds_by_part'] = profile(6, 16, 16)
    note(json.dumps({k: v for k,v in res.items() if k in ('ratios', 'loss_difference', 'tokens', 'ours_to_best_rival', 'spare_gib')}, indent=1))
    store(a.out/f'{name}.json', 'How fast a training step is, side by side in one run', dict(threads=torch.get_num_threads(), **res),
        trl=t.__version__, bitsandbytes=bitsandbytes.__version__)
    if any(o.get('failed') for o in res.get('results', {}).values()): sys.exit('error: some set-ups failed for another reason than memory: see the results.')

if __name__ == '__main__': main()
