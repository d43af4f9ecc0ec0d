"Training in this process: memory, damage, NF4, looks, the session clock"
import json, shutil
from types import SimpleNamespace
import pytest, torch
import cxr_llava.train.batch as batch, cxr_llava.train.run
from cxr_llava.finetune import finetune
from cxr_llava.train.settings import FinetuneConfig
from cxr_llava.core.files import CXRError, read_json
from made_up import conversations, losses, rows

@pytest.fixture(scope='module')
def data(tmp_path_factory): return conversations(tmp_path_factory.mktemp('conversations'))

def settings(data, out, **kw):
    return FinetuneConfig(**dict(dict(base='tiny', device='cpu', epochs=2., batch=2, effective_batch=4, dropout=.1, evals=0, save_minutes=.001,
        data=str(data), out=str(out/'adapter')), **kw))

@pytest.fixture(scope='module')
def reference(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('reference')
    finetune(settings(data, out))
    return out

def same(a, b):
    assert read_json(a/'finetune.json')['adapter_hash'] == read_json(b/'finetune.json')['adapter_hash'] and losses(a) == losses(b)

def test_a_damaged_newest_checkpoint_falls_back(data, reference, tmp_path, capsys):
    "Cut short after the run was stopped: the one before is taken, the end is the same"
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    (tmp_path/'finetune.json').unlink()
    last = max((tmp_path/'checkpoints').glob('checkpoint-*'), key=lambda p: int(p.name.split('-')[1]))
    f = last/'optimizer.pt'
    f.write_bytes(f.read_bytes()[:-10])
    finetune(settings(data, tmp_path))
    said = capsys.readouterr().out
    assert f'{last.name} is damaged' in said and 'resume: from' in said and str(last) not in said.split('resume: from')[1].splitlines()[0]
    same(tmp_path, reference)

def test_attached_output_of_an_earlier_session(data, reference, tmp_path, monkeypatch, capsys):
    "Read-only: copied, gone on from, left alone"
    old = tmp_path/'kaggle/input/notebooks/me/cxr-llava-20-finetune/checkpoints'
    shutil.copytree(reference/'checkpoints', old)
    for p in [*old.rglob('*'), old]: p.chmod(0o555 if p.is_dir() else 0o444)
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path/'kaggle'))
    finetune(settings(data, tmp_path/'new'))
    assert f'resume: from {tmp_path}/new/checkpoints/checkpoint-' in capsys.readouterr().out
    same(tmp_path/'new', reference)

def test_out_of_memory_goes_on_lighter(data, reference, tmp_path, monkeypatch, capsys):
    "In the fifth step a pass of two is too much: same step, same losses but for dropout"
    plain, seen = settings(data, tmp_path/'a', dropout=0.), []
    finetune(plain)
    collate = batch.Collator.__call__
    def short(self, rows):
        seen.append(len(rows))
        if len(rows) > 1 and len(seen) > 14: raise torch.cuda.OutOfMemoryError('CUDA out of memory (made up)')
        return collate(self, rows)
    monkeypatch.setattr(batch.Collator, '__call__', short)
    finetune(plain.replaced(out=str(tmp_path/'b/adapter'), save_minutes=20.))
    said = capsys.readouterr().out
    assert 'memory ran out after step' in said and 'micro-batch 2 -> 1' in said and 'resume: from' in said
    assert int(said.split('memory ran out after step ')[1].split(':')[0]) > 2
    a, b = losses(tmp_path/'a'), losses(tmp_path/'b')
    assert [s for s,_ in a] == [s for s,_ in b] and max(abs(x - y) for (_,x),(_,y) in zip(a, b)) < 1e-3
    s = read_json(tmp_path/'b/finetune.json')
    assert (s['micro'], s['finished'], s['steps']) == (1, True, s['total_steps'])

def test_no_memory_at_all_is_one_sentence(data, tmp_path, monkeypatch):
    def none(self, rows): raise torch.cuda.OutOfMemoryError('CUDA out of memory (made up)')
    monkeypatch.setattr(cxr_llava.train.run, 'can_trim', lambda *a: False)
    monkeypatch.setattr(batch.Collator, '__call__', none)
    with pytest.raises(CXRError, match='too little memory'): finetune(settings(data, tmp_path))

def test_looks_and_the_best_adapter(data, tmp_path, capsys):
    "Evaluation loss and texts are looked at as often as asked; best and last adapter are kept; plan and measurement end the log"
    val = tmp_path/'val.json'
    val.write_text(json.dumps([dict(o, image=str(data.parent/o['image'])) for o in json.loads(data.read_text())[:5]]))
    finetune(settings(data, tmp_path, val=str(val), evals=2, dropout=0.))
    log = rows(tmp_path)
    evals = {r['step']: r['eval_loss'] for r in log if 'eval_loss' in r}
    assert sorted(evals) == [4, 8] and [r['step'] for r in log if 'look' in r] == [4, 8]
    assert all(0 <= r['look'][k] <= r['look']['texts'] == 4 for r in log if 'look' in r for k in ('stopped', 'sections', 'different'))
    best = read_json(tmp_path/'adapter_best/cxr_llava.json')
    assert best['eval_loss'] == round(min(evals.values()), 4) and evals[best['steps']] == min(evals.values())
    s = read_json(tmp_path/'finetune.json')
    assert s['best']['step'] == best['steps']
    assert log[-1]['measured']['gib'] > 0 and log[-1]['planned']['gib'] > 0 and log[-1]['measured']['seconds'] > 0
    assert 'planned' in capsys.readouterr().out

def test_the_session_clock_stops_in_time(data, reference, tmp_path, monkeypatch):
    "Hours count from the beginning of the session, also when the training began later"
    import time
    monkeypatch.setenv('CXR_SESSION_START', str(time.time() - 3600))
    finetune(settings(data, tmp_path, max_hours=.9))
    s = read_json(tmp_path/'finetune.json')
    assert s['finished'] is False and s['steps'] == 1 and (tmp_path/'adapter/adapter_model.safetensors').is_file()
    monkeypatch.delenv('CXR_SESSION_START')
    finetune(settings(data, tmp_path))
    same(tmp_path, reference)

@pytest.fixture(scope='module')
def small_llava(tmp_path_factory):
    "A random LLaVA of LLaVA-1.5's shape in small, with the tiny one's processor"
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    d, p = tmp_path_factory.mktemp('small'), load_processor(tiny_dir())
    c = LlavaConfig(vision_config=CLIPVisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=128, patch_size=16, projection_dim=64),
        text_config=LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, vocab_size=1022, max_position_embeddings=1024),
        image_token_index=p.image_token_id, image_seq_length=64)
    torch.manual_seed(0)
    LlavaForConditionalGeneration(c).half().save_pretrained(d)
    p.save_pretrained(d)
    return d

def kinds(m, part): return {type(o).__name__ for n,o in m.named_modules() if part in n and n.split('.')[-1] in ('q_proj', 'fc1', 'linear_1', 'lm_head', 'gate_proj')}

def test_nf4_trains_on_a_cpu_with_the_right_parts_in_4_bits(data, small_llava, tmp_path):
    "QLoRA: vision tower, projector and head stay whole, the loss falls, the adapter is in 32 bits and loads on the 16-bit base"
    from cxr_llava.vlm.bases import load_base
    from cxr_llava.vlm.load import load_model
    m, _ = load_base(str(small_llava), 'nf4', 'cpu')
    assert kinds(m, 'language_model') == {'Linear4bit'}
    for part in ('vision_tower', 'multi_modal_projector', 'lm_head'): assert kinds(m, part) == {'Linear'}, part
    cfg = settings(data, tmp_path, base=str(small_llava), precision='nf4', lr=1e-2, epochs=4., dropout=0.)
    finetune(cfg)
    l = [v for _,v in losses(tmp_path)]
    assert sum(l[-3:]) < sum(l[:3]) - .5
    s = read_json(tmp_path/'finetune.json')
    assert s['precision'] == 'nf4' and s['trainable'] == 3*16*(128*3 + 128)
    from safetensors.torch import load_file
    w = load_file(tmp_path/'adapter/adapter_model.safetensors')
    assert {v.dtype for v in w.values()} == {torch.float32} and not [k for k in w if 'vision' in k]
    assert load_model(str(tmp_path/'adapter'), base=str(small_llava), precision='fp32', device='cpu').generate_report(data.parent/'0.png', max_new_tokens=4)

def test_training_from_a_ready_4_bit_folder(data, small_llava, tmp_path):
    "The same adapter as from the folder it was made of, packed on loading"
    from cxr_llava.train.publish import export_nf4
    packed = export_nf4(str(small_llava), tmp_path/'packed', 'cpu')
    for name,base in (('a', small_llava), ('b', packed)): finetune(settings(data, tmp_path/name, base=str(base), precision='nf4', dropout=0., epochs=1.))
    assert losses(tmp_path/'a') == losses(tmp_path/'b')
    with pytest.raises(CXRError, match='4 bits'): finetune(settings(data, tmp_path/'c', base=str(packed), precision='fp16'))

@pytest.mark.parametrize('every', ['all', '2'])
def test_recomputing_layers_changes_nothing(data, reference, tmp_path, every):
    finetune(settings(data, tmp_path, checkpointing=every))
    assert max(abs(x - y) for (_,x),(_,y) in zip(losses(tmp_path), losses(reference))) < 1e-4

def test_changed_xrays_under_the_same_ids_are_learned_from_anew(tmp_path, capsys):
    "Neither finished nor gone on with: ids, names and texts are the same, one picture is not"
    data = conversations(tmp_path, 8)
    finetune(settings(data, tmp_path, epochs=1.))
    before = read_json(tmp_path/'finetune.json')
    shutil.copyfile(tmp_path/'1.png', tmp_path/'0.png')
    finetune(settings(data, tmp_path, epochs=1.))
    after, said = read_json(tmp_path/'finetune.json'), capsys.readouterr().out
    assert 'this run is finished' not in said and 'resume: from' not in said
    assert all(before[k] != after[k] for k in ('data_hash', 'key', 'adapter_hash'))

def test_the_fingerprint_of_an_adapter_is_that_of_the_studies_it_saw(tmp_path):
    "Unreadable X-rays are left out of it"
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    from cxr_llava.core.files import Rejects
    data = conversations(tmp_path, 8)
    (tmp_path/'0.png').write_text('no picture'), (tmp_path/'1.png').unlink()
    cfg = settings(data, tmp_path, epochs=1.)
    finetune(cfg)
    rows = batch.read_rows(cfg, data, load_processor(tiny_dir()), Rejects())
    assert read_json(tmp_path/'adapter/cxr_llava.json')['data_hash'] == batch.data_hash([r for r in rows if r['id'] not in ('s0', 's1')]) != batch.data_hash(rows)

def test_a_split_without_validation_studies(tmp_path, capsys):
    "It is trained all the same; an empty file that was asked for is a mistake"
    data, val = conversations(tmp_path, 8), tmp_path/'val.json'
    val.write_text('[]')
    cfg = settings(data, tmp_path, epochs=1., evals=1)
    finetune(cfg)
    assert 'no validation loss' in capsys.readouterr().out and read_json(tmp_path/'finetune.json')['finished']
    with pytest.raises(CXRError, match='val.json has no usable conversation'): finetune(cfg.replaced(val=str(val)))

def test_two_adapters_side_by_side_share_no_file(reference, data, tmp_path, monkeypatch, capsys):
    "A second one leaves the first one's run as it was, and is gone on with from an attached session"
    run = tmp_path/'kaggle/input/notebooks/me/first'
    shutil.copytree(reference, run)
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    cfg = settings(data, run, seed=1).replaced(out=str(run/'adapter_v2'))
    finetune(cfg)
    assert {p: p.read_bytes() for p in before} == before
    new = {p.relative_to(run).parts[0] for p in run.rglob('*')} - {p.relative_to(run).parts[0] for p in before}
    assert new == {'adapter_v2', '.adapter_v2_lock', *(f'adapter_v2_{o}' for o in ('checkpoints', 'train_log.jsonl', 'loss.png', 'finetune.json', 'finetune_rejects.jsonl'))}
    finetune(cfg)
    assert 'this run is finished' in capsys.readouterr().out
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path/'kaggle'))
    finetune(cfg.replaced(out=str(tmp_path/'new/adapter_v3')))
    assert f'resume: from {tmp_path}/new/adapter_v3_checkpoints/checkpoint-' in capsys.readouterr().out
    assert read_json(tmp_path/'new/adapter_v3_finetune.json')['adapter_hash'] == read_json(run/'adapter_v2_finetune.json')['adapter_hash']

def test_the_best_adapter_of_another_run_does_not_stay(data, tmp_path):
    "A new training without a validation loss has no best adapter"
    val = tmp_path/'val.json'
    val.write_text(json.dumps([dict(o, image=str(data.parent/o['image'])) for o in json.loads(data.read_text())[:5]]))
    looks = settings(data, tmp_path, epochs=1., val=str(val), evals=1)
    finetune(looks)
    best = tmp_path/'adapter_best/cxr_llava.json'
    before = best.read_bytes()
    (tmp_path/'finetune.json').unlink()
    finetune(looks) # gone on with
    assert best.read_bytes() == before
    finetune(settings(data, tmp_path, epochs=1., seed=1))
    assert not best.parent.exists()
