"Who may have an adapter, in which form, and adapters and settings of the course project"
import json, shutil
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file, save_file
import cxr_llava.train.publish as pub
from cxr_llava.vlm.adapters import attach_adapter, random_adapter
from cxr_llava.vlm.bases import load_base
from cxr_llava.vlm.load import load_model
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.train.publish import (
    check_publishable, data_sources, export_nf4, main, merge, model_card, publish, PublishConfig, upload)
from cxr_llava.train.settings import FinetuneConfig
from cxr_llava.core.files import CXRError, read_json, write_json

@pytest.fixture(scope='module')
def adapter(tmp_path_factory): return random_adapter(tmp_path_factory.mktemp('a')/'adapter')

def with_sources(adapter, to, *sources):
    "The adapter, with the sources of its data"
    shutil.copytree(adapter, to)
    write_json(to/'cxr_llava.json', read_json(to/'cxr_llava.json') | dict(sources=list(sources)))
    return to

# Publishing

@pytest.mark.parametrize('sources', [['mimic'], ['openi', 'mimic'], ['course']])
def test_credentialed_data_is_refused_before_anything_is_done(adapter, tmp_path, monkeypatch, sources):
    monkeypatch.setattr('huggingface_hub.HfApi', lambda *a, **kw: pytest.fail('the hub was called'))
    a = with_sources(adapter, tmp_path/'a', *sources)
    with pytest.raises(CXRError, match='credentialed.*signed its agreement'): publish(PublishConfig(adapter=str(a), repo='me/x', merge=str(tmp_path/'m'), rights='I insist'))
    assert not (tmp_path/'m').exists()

def test_a_merged_or_packed_model_remembers_what_it_learned_from(adapter, tmp_path):
    a = with_sources(adapter, tmp_path/'a', 'mimic')
    packed = export_nf4(str(merge(a, tmp_path/'m')), tmp_path/'p', 'cpu')
    for d in (tmp_path/'m', packed):
        with pytest.raises(CXRError, match='credentialed'): upload(d, 'me/x', 'mine')

def test_unknown_data_need_a_word(adapter, tmp_path):
    for sources in (['unknown'], ['table'], ['something new'], []):
        with pytest.raises(CXRError, match='--rights'): check_publishable(dict(sources=sources))
        check_publishable(dict(sources=sources), rights='our own, with consent')

def test_open_data_are_uploaded_privately_and_the_token_is_not_told(adapter, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setenv('HF_TOKEN', 'hf_secretsecret')
    class Api:
        def __init__(self, token=None): calls.append(('token', token))
        def create_repo(self, repo, **kw): calls.append(('create', repo, kw['private']))
        def upload_folder(self, repo_id, folder_path, **kw): calls.append(('upload', repo_id, sorted(p.name for p in Path(folder_path).iterdir())))
    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    main(['--adapter', str(with_sources(adapter, tmp_path/'a', 'openi')), '--repo', 'me/x'])
    assert calls[0] == ('token', 'hf_secretsecret') and calls[1] == ('create', 'me/x', True) and 'adapter_model.safetensors' in calls[2][2]
    assert 'secret' not in capsys.readouterr().out

def test_a_failing_upload_is_one_sentence(adapter, tmp_path, monkeypatch):
    class Api:
        def __init__(self, token=None): pass
        def create_repo(self, *a, **kw): raise RuntimeError('401 for hf_secretsecret')
    monkeypatch.setattr('huggingface_hub.HfApi', Api)
    with pytest.raises(CXRError, match='could not be written') as e: upload(with_sources(adapter, tmp_path/'a', 'phantom'), 'me/x')
    assert 'secret' not in str(e.value)

# What is written

def test_nothing_needed_is_replaced(adapter, tmp_path):
    "Neither the adapter, nor the base or the merged model being read, nor a folder of something else"
    shutil.copytree(adapter, tmp_path/'a')
    merge(adapter, tmp_path/'base')
    shutil.copytree(adapter, tmp_path/'on_base')
    write_json(tmp_path/'on_base/cxr_llava.json', read_json(tmp_path/'on_base/cxr_llava.json') | dict(base=str(tmp_path/'base')))
    (tmp_path/'work').mkdir()
    (tmp_path/'work/thesis.docx').write_text('mine')
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    for kw in (dict(merge='a'), dict(nf4='a'), dict(merge='work'), dict(nf4='work'), dict(merge='work/thesis.docx'), dict(merge='new', nf4='new'), dict(adapter='on_base', merge='base'), dict(adapter='on_base', nf4='base')):
        with pytest.raises(CXRError, match='name a new folder'): publish(PublishConfig(**{k: str(tmp_path/v) for k,v in (dict(adapter='a') | kw).items()}))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == before
    assert publish(PublishConfig(adapter=str(tmp_path/'a'), merge=str(tmp_path/'base'))) == tmp_path/'base' # made of the tiny one, so an older one of its kind

# Where data come from

def test_sources_from_the_manifest_with_its_split(tmp_path):
    import pandas as pd
    pd.DataFrame(dict(study_id=['a', 'b', 'c'], source=['openi_csv', 'openi_xml', 'mimic'], split=['train', 'train', 'test'])).to_parquet(tmp_path/'studies.parquet')
    write_json(tmp_path/'splits.json', dict(hash='abc'))
    write_json(tmp_path/'train.json', [])
    assert data_sources(tmp_path/'train.json') == dict(sources=['openi'], split='abc')

MIMIC_SIGNS = ['/kaggle/input/mimic-cxr/Main/p1/i1.jpg', f'files/p10/p1{"0"*7}/s5{"1"*7}/x.jpg', 'Compared with ___, no change.', 'MIMIC']

@pytest.mark.parametrize('sign', MIMIC_SIGNS)
def test_traces_of_mimic_in_foreign_files(tmp_path, sign):
    write_json(tmp_path/'train.json', [dict(image='a.jpg', conversations=[])]*1000 + [dict(image=sign, conversations=[])])
    assert data_sources(tmp_path/'train.json')['sources'] == ['mimic']

def test_no_traces(tmp_path):
    write_json(tmp_path/'train.json', [dict(id='p12', image='i1000.jpg', conversations=[dict(value='Heart normal. XXXX.')])])
    assert data_sources(tmp_path/'train.json')['sources'] == ['unknown']

CARD = dict(base='llava-1.5-7b', base_hash='0'*12, conversations=8, data_hash='1'*12, steps=4, total_steps=4, world_size=2, loss=1.2, eval_loss=1.1,
    sources=['openi'], split='2'*12, precision='nf4', settings=dict(lora_r=16, alpha=32, effective_batch=4, lr=1e-4, seed=0), versions=dict(torch='2.13.0'))

def test_the_card_names_data_split_numbers_limits_and_duties():
    import yaml
    card = model_card(CARD)
    for o in ('openi', '2'*12, '1'*12, '1.2', '1.1', 'Limits', 'BY-NC-ND', 'Llama 2', 'Not a medical device'): assert o in card, o
    assert yaml.safe_load(card.split('---')[1])['base_model'] == 'llava-hf/llava-1.5-7b-hf'

def test_no_path_of_this_computer_on_the_card(tmp_path): assert str(tmp_path) not in model_card(CARD | dict(base=str(tmp_path/'mine')))

def test_an_attached_adapter_is_copied_for_its_scores_and_left_alone(adapter, tmp_path, monkeypatch):
    "Those of another adapter are not taken; what is merged from it carries the card"
    a = with_sources(adapter, tmp_path/'attached', 'openi')
    (a/'README.md').write_text(model_card(CARD))
    said, run = dict(headline=dict(status='provisional', text='Provisional: Macro F1 0.41.', reason='Not judged: noise.'), systems={}, provenance=dict(n=7, units='7 patients',
        model=dict(adapter_hash='another'), labeller='rules', uncertain='as negative', intervals='x', decoding=dict(precision='nf4'), versions={})), tmp_path/'run'
    run.mkdir()
    for own in (False, True):
        if own: said['provenance']['model']['adapter_hash'] = pub.read_adapter(a)['hash']
        write_json(run/'metrics.json', said)
        merged = publish(PublishConfig(adapter=str(a), merge=str(tmp_path/'m'), run=str(run)))
        assert ('Macro F1 0.41. Not judged: noise.' in (merged/'README.md').read_text()) == own == (run/'published').exists()
    assert (a/'README.md').read_text() == model_card(CARD)

# The course project's adapter: old names, vision tower too

@pytest.fixture(scope='module')
def broad(tmp_path_factory):
    "An adapter on every `q_proj` and `v_proj`, and an X-ray"
    from peft import LoraConfig, get_peft_model
    d = tmp_path_factory.mktemp('broad')
    phantom_xray(3, effusion='left').save(d/'x.png')
    m, _ = load_base('tiny')
    pm = get_peft_model(m, LoraConfig(r=4, lora_alpha=8, target_modules=['q_proj', 'v_proj']))
    torch.manual_seed(0)
    for n,p in pm.named_parameters():
        if 'lora_B' in n: p.data.normal_(0, .2)
    pm.save_pretrained(d/'adapter')
    c = read_json(d/'adapter/adapter_config.json')
    write_json(d/'adapter/adapter_config.json', c | dict(base_model_name_or_path='cxr_llava/tiny'))
    return d

def flat(k): return k.replace('vision_tower.vision_model.', 'vision_tower.')
def deep(k): return flat(k).replace('model.vision_tower.', 'model.vision_tower.vision_model.')
def oldest(k): return deep(k).replace('base_model.model.model.language_model.', 'base_model.model.language_model.model.').replace('base_model.model.model.vision_tower.', 'base_model.model.vision_tower.')

def renamed(broad, to, name):
    shutil.copytree(broad/'adapter', to)
    save_file({name(k): v for k,v in load_file(broad/'adapter/adapter_model.safetensors').items()}, to/'adapter_model.safetensors', metadata={'format': 'pt'})
    return to

@pytest.mark.parametrize('name', [flat, deep, oldest])
def test_the_course_adapter_loads_under_any_names_it_was_saved_with(broad, tmp_path, name):
    a = renamed(broad, tmp_path/'a', name)
    w = load_file(a/'adapter_model.safetensors')
    pm = attach_adapter(load_base('tiny')[0], a)
    got = {n.replace('.default', ''): p for n,p in pm.named_parameters() if 'lora_' in n}
    assert len(got) == len(w) and any('vision' in k for k in w)
    for k,v in load_file(broad/'adapter/adapter_model.safetensors').items(): assert torch.equal(next(p for n,p in got.items() if n.split('encoder.layers')[-1].split('language_model.layers')[-1] == k.split('encoder.layers')[-1].split('language_model.layers')[-1] and ('vision' in n) == ('vision' in k)), v), k

def test_an_adapter_with_weights_for_nowhere_is_refused_with_the_reason(broad, tmp_path):
    a = renamed(broad, tmp_path/'a', lambda k: k.replace('encoder.layers.0', 'encoder.layers.20'))
    with pytest.raises(CXRError, match='vision_tower'): attach_adapter(load_base('tiny')[0], a)

def test_pickled_course_adapter_is_refused(broad, tmp_path):
    shutil.copytree(broad/'adapter', tmp_path/'a')
    (tmp_path/'a/adapter_model.safetensors').rename(tmp_path/'a/adapter_model.bin')
    with pytest.raises(CXRError, match='pickle'): load_model(str(tmp_path/'a'), base='tiny')

# The course project's settings and data

COURSE = '''
model: {base_model: llava-hf/llava-1.5-7b-hf, torch_dtype: float16}
lora: {r: 32, lora_alpha: 64, lora_dropout: 0.05, target_modules: [q_proj, v_proj]}
data: {train_file: train_clean.json, val_file: val.json, max_length: 512}
training: {per_device_train_batch_size: 1, gradient_accumulation_steps: 4, learning_rate: 2.0e-4, num_train_epochs: 2, lr_scheduler_type: cosine, warmup_ratio: 0.03,
  fp16: true, save_total_limit: 2, output_dir: out}
'''

def test_course_settings(tmp_path, capsys):
    (tmp_path/'c.yaml').write_text(COURSE)
    cfg = FinetuneConfig.load(tmp_path/'c.yaml', data='mine.json')
    assert (cfg.base, cfg.lora_r, cfg.alpha, cfg.lr, cfg.effective_batch, cfg.schedule, cfg.data, cfg.run) == ('llava-hf/llava-1.5-7b-hf', 32, 64, 2e-4, 4, 'cosine', 'mine.json', 'out')
    assert cfg.max_len == 512 + 575
    said = capsys.readouterr().out
    for o in ('training.fp16', 'lora.target_modules', 'model.torch_dtype'): assert o in said, o

def test_course_data_with_absolute_kaggle_paths(tmp_path):
    "X-rays are found below the attached data set, report and impression in separate turns are joined"
    from cxr_llava.finetune import finetune
    top = tmp_path/'kaggle/input/mimic-cxr/Main2'
    recs = []
    for i in range(8):
        (top/f'p{1000 + i}').mkdir(parents=True)
        phantom_xray(i, size=96).save(top/f'p{1000 + i}/i{1000 + i}.jpg')
        recs.append(dict(image=f'/kaggle/input/mimic-cxr/Main2/p{1000 + i}/i{1000 + i}.jpg', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
            {'from': 'gpt', 'value': 'FINDINGS:\nThe lungs are clear.'}, {'from': 'human', 'value': 'Impression?'}, {'from': 'gpt', 'value': 'IMPRESSION:\nNormal.'}]))
    write_json(tmp_path/'train_clean.json', recs)
    a = finetune(FinetuneConfig(base='tiny', device='cpu', data=str(tmp_path/'train_clean.json'), image_root=str(tmp_path/'kaggle/input'), run=str(tmp_path/'run'), epochs=1., batch=4,
        effective_batch=4, evals=0))
    info = read_json(a/'cxr_llava.json')
    assert info['steps'] == 2 and info['sources'] == ['mimic']
    with pytest.raises(CXRError, match='credentialed'): publish(PublishConfig(adapter=str(a), repo='me/x'))
    assert 'signed its agreement' in (a/'README.md').read_text()
