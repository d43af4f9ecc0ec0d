"The plan: numbers counted on the real modules, traps of each GPU, data that do not fit"
import json, subprocess, sys
import pytest
from cxr_llava.train.plan import (
    activation_bytes, base_shape, cache_bytes, GPUS, guessed_load, Load, logit_bytes, lora_weights,
    make_plan, memory, model_shape, parse_gpu, plan_lines, step_flops, study_seconds, weight_bytes)
from cxr_llava.train.settings import FinetuneConfig, recomputed, run_plan, settled, show_plan
from cxr_llava.core.files import CXRError

GIB = 2**30
S7, S13, TINY = base_shape('llava-1.5-7b'), base_shape('llava-1.5-13b'), base_shape('tiny')
T4 = GPUS['T4']

def near(a, b, share=.02): assert abs(a - b) <= share*abs(b), (a, b)

def test_weights_as_counted():
    n = S7.weights
    for k,v in dict(linear=6476.0, embedding=131.3, head=131.3, vision=303.5, projector=21.0).items(): near(n[k]/1e6, v, .001)
    near(sum(n.values())/1e6, 7063.4, .0001)
    near(weight_bytes(S7, 'fp16')/GIB, 13.16, .001), near(weight_bytes(S7, 'nf4')/GIB, 4.21, .002)
    assert lora_weights(S7) == 8_388_608

@pytest.mark.parametrize('base,config', [('llava-1.5-7b', dict(vocab_size=32064)),
    ('llava-1.5-13b', dict(vocab_size=32064, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)),
    ('grouped', dict(vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2))])
def test_the_count_is_that_of_the_model_built(base, config):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaConfig, LlavaForConditionalGeneration
    from cxr_llava.vlm.family import Family
    c = LlavaConfig(text_config=dict(model_type='llama', **config))
    s = model_shape(c.to_dict())
    if base != 'grouped': assert s == base_shape(base)
    with torch.device('meta'): m = LlavaForConditionalGeneration(c)
    assert sum(p.numel() for p in m.parameters()) == sum(s.weights.values())
    pm = get_peft_model(m, LoraConfig(r=16, target_modules=Family.lora_targets))
    assert sum(p.numel() for p in pm.parameters() if p.requires_grad) == lora_weights(s)

def test_arithmetic_as_counted():
    "Without the vision tower's .40 TFLOP"
    for tokens,plain,redone in ((700, 19.2, 26.6), (776, 21.4, 29.55), (826, 22.9, 31.5), (900, 25.0, 34.5)):
        near(step_flops(S7, tokens, tokens)/1e12 - .40, plain, .01)
        near(step_flops(S7, tokens, tokens, every=1)/1e12 - .40, redone, .01)
    near((step_flops(S7, 776, 776) - step_flops(S7, 776, 200))/1e12, .3, .05)

def test_time_floor_on_a_t4():
    for (b, k),t in {(1, 0): 1.03, (2, 0): .96, (1, 2): 1.23, (1, 1): 1.43}.items():
        near(study_seconds(S7, T4, 'nf4', b, every=k, efficiency=1), t, .03)
    near(make_plan('llava-1.5-7b', S7, T4, 2, Load(6500)).floor, .51, .03)

def test_memory_on_a_t4():
    for (p, b, k),g in {('nf4', 1, 0): 8.6, ('nf4', 2, 0): 12.2, ('nf4', 1, 1): 5.8, ('fp16', 1, 0): 17.5}.items():
        near(memory(S7, p, b, every=k)['total'], g, .05)
    near(memory(S7, 'nf4')['optimiser'], .125, .01)
    near(cache_bytes(S7, 1)/2**20, .5, .001)
    near(logit_bytes(S7, 776)/4/2**20, 95, .01)
    got = [activation_bytes(S7, 776, dropout=False, every=k)/GIB for k in (0, 4, 2, 1)]
    for g,want in zip(got, (3.4, 2.75, 1.95, .3)): near(g, want, .1)

def test_a_t4_never_gets_bf16_nor_16_bit_weights():
    p = make_plan('llava-1.5-7b', S7, T4, 2, Load(100, longest=1024))
    assert (p.precision, p.every, p.gpus) == ('nf4', 0, 2) and p.memory['total'] <= p.room - 1
    with pytest.raises(CXRError, match='emulated'): make_plan('llava-1.5-7b', S7, T4, 1, Load(100), precision='bf16')
    with pytest.raises(CXRError, match='does not fit.*nf4'): make_plan('llava-1.5-7b', S7, T4, 1, Load(100), precision='fp16')

def test_fits_a_t4_with_a_gigabyte_to_spare_at_micro_batch_one():
    assert memory(S7, 'nf4', 1, 776, 200)['total'] < T4.memory - 1

def test_what_other_gpus_get():
    def plan(g, base='llava-1.5-7b', **kw): return make_plan(base, base_shape(base), *parse_gpu(g), Load(1000), **kw)
    assert plan('A100-80GB').precision == 'bf16' and plan('V100').precision == 'nf4'
    assert plan('T4', 'llava-1.5-13b').every > 0 and plan('A100-80GB', 'llava-1.5-13b').precision == 'bf16'
    with pytest.raises(CXRError, match='too old'): plan('P100')
    assert plan('H100', effective=16).micro > 1
    assert plan('T4 x2', 'tiny').precision == 'fp32'

@pytest.mark.parametrize('gpus', range(1, 9))
@pytest.mark.parametrize('effective', [1, 4, 6, 16])
def test_the_effective_batch_is_kept(gpus, effective):
    p = make_plan('llava-1.5-7b', S7, T4, gpus, Load(100), effective=effective)
    assert p.gpus*p.passes*p.micro == effective and p.gpus <= gpus
    assert (p.gpus == gpus) or any('idle' in o for o in p.notes)

def test_what_the_user_fixed_stays():
    p = make_plan('llava-1.5-7b', S7, GPUS['A100-80GB'], 1, Load(100), precision='nf4', batch=2, every=2, effective=8)
    assert (p.precision, p.micro, p.every) == ('nf4', 2, 2)

def test_long_studies_make_it_lighter():
    short, long = (make_plan('llava-1.5-7b', S7, T4, 1, Load(100, longest=n)) for n in (776, 2048))
    assert (long.every or 99, -long.micro) > (0, -short.micro) and long.memory['total'] <= T4.memory - 1
    with pytest.raises(CXRError, match='does not fit'): make_plan('llava-1.5-7b', S7, T4, 1, Load(100, longest=60_000, longest_answer=59_000))

def test_data_that_do_not_fit_the_session():
    p = make_plan('llava-1.5-7b', S7, T4, 2, Load(377_110))
    assert p.sessions > 10 and 20_000 < p.fits < 38_000
    assert f'--limit {p.fits}' in '\n'.join(plan_lines(p, 11.))
    again = make_plan('llava-1.5-7b', S7, T4, 2, Load(p.fits))
    assert again.hours <= 11 and again.sessions == 1 and len(plan_lines(again, 11.)) == 3
    assert make_plan('llava-1.5-7b', S7, T4, 2, Load(100), max_hours=0).fits == 0

@pytest.mark.parametrize('text,name,n', [('T4 x2', 'T4', 2), ('2 x T4', 'T4', 2), ('t4*2', 'T4', 2), ('Tesla T4', 'T4', 1), ('NVIDIA L4', 'L4', 1), ('Tesla V100-SXM2-16GB', 'V100', 1),
    ('NVIDIA A100-SXM4-40GB', 'A100-40GB', 1), ('NVIDIA A100 80GB PCIe', 'A100-80GB', 1), ('NVIDIA H100 80GB HBM3', 'H100', 1), ('NVIDIA H200', 'H200', 1), ('Tesla P100-PCIE-16GB', 'P100', 1),
    ('NVIDIA GeForce RTX 3090', 'RTX 3090', 1), ('A100 x32', 'A100-40GB', 32)])
def test_names_of_gpus(text, name, n):
    d, k = parse_gpu(text)
    assert (d.name, k) == (name, n)

@pytest.mark.parametrize('text', ['', 'x', 'T4 x0', 'GTX 1080', '2', 'T', '4', 'x2', 'T44', 'NVIDIA'])
def test_names_that_are_none(text):
    with pytest.raises(CXRError): parse_gpu(text)

def test_length_guessed_from_text():
    one = dict(image='a.jpg', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'}, {'from': 'gpt', 'value': 'The lungs are clear. '*20}])
    l = guessed_load([one]*5 + ['broken', {}], S7)
    assert l.rows == 6 and 576 < l.tokens < 776 and 100 < l.longest_answer < 160
    two = guessed_load([one | dict(image=['a.jpg', 'b.jpg'])], S7, max_len=2000)
    assert two.tokens > 1152
    with pytest.raises(CXRError, match='max_len'): guessed_load([one], S7, max_len=500)

def test_the_guess_is_near_the_tokenizer():
    from cxr_llava.train.batch import encode_records
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    from cxr_llava.train.plan import encoded_load
    recs = [dict(id='1', image='a.png', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
        {'from': 'gpt', 'value': 'FINDINGS:\nThere is a left pleural effusion. The heart is normal.\n\nIMPRESSION:\nLeft pleural effusion.'}])]
    exact, guess = encoded_load(encode_records(recs, load_processor(tiny_dir()))), guessed_load(recs, TINY)
    near(guess.tokens, exact.tokens, .3)

@pytest.mark.parametrize('text,n', [('auto', -1), ('none', 0), ('all', 1), ('3', 3), ('True', 1), ('false', 0)])
def test_checkpointing_setting(text, n): assert recomputed(text) == n

@pytest.mark.parametrize('text', ['', 'maybe', '-2', '1.5'])
def test_checkpointing_setting_refused(text):
    with pytest.raises(CXRError, match='auto, none, all'): recomputed(text)

def test_settings_as_planned():
    cfg = FinetuneConfig(base='llava-1.5-7b')
    done = settled(cfg, run_plan(cfg, T4, 2, Load(100)))
    assert (done.precision, done.checkpointing, done.effective_batch) == ('nf4', 'none', 4) and done.batch in (1, 2)
    again = settled(done, run_plan(done, T4, 2, Load(100)))
    assert again.to_dict() == done.to_dict()

def test_table_for_large_data():
    def plan(gpu):
        dev, n = parse_gpu(gpu)
        return make_plan('llava-1.5-7b', S7, dev, n, Load(377_110), effective=max(4, n))
    plans = {g: plan(g) for g in ('T4 x2', 'L4 x4', 'A100-40GB x1', 'A100-80GB x8', 'A100-80GB x32', 'H100 x8')}
    best = plans['T4 x2'].floor*377_110*2/3600
    assert 100 < best < 115 and plans['A100-80GB x8'].hours < 8 and all(p.memory['total'] > 5 for p in plans.values())

def test_command_without_gpu_or_data(tmp_path):
    r = subprocess.run([sys.executable, '-c', 'from cxr_llava.train.settings import main; main()', '--gpu', 'T4 x2', '--rows', '20000'], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert '2 x T4' in r.stdout and 'NF4' in r.stdout and 'GiB' in r.stdout and 'h' in r.stdout and not list(tmp_path.iterdir())

def test_command_reads_the_training_file(tmp_path, capsys):
    one = dict(image='a.jpg', conversations=[{'from': 'human', 'value': '<image>\nReport.'}, {'from': 'gpt', 'value': 'FINDINGS:\nClear.'*10}])
    (tmp_path/'train.json').write_text(json.dumps([one]*321))
    args = type('Args', (), dict(gpu='T4 x2', rows=None))
    show_plan(FinetuneConfig(run=str(tmp_path), base='llava-1.5-7b'), args)
    assert '321 studies' in capsys.readouterr().out
    args.rows = 0
    with pytest.raises(CXRError, match='rows'): show_plan(FinetuneConfig(), args)
