"Loading refuses what does not belong together: each fault by `load_model`, each with its own sentence"
import json, shutil
import pytest
from cxr_llava.core.files import CXRError, read_json, write_json
from cxr_llava.vlm.bases import tiny_adapter, tiny_dir
from cxr_llava.vlm.load import load_model

W = 'adapter_model.safetensors'

def weights(fn):
    from safetensors.torch import load_file, save_file
    return lambda d: save_file(fn(load_file(d/W)), d/W)

def settings(**kw): return lambda d: write_json(d/'adapter_config.json', read_json(d/'adapter_config.json') | kw)

def nameless(then):
    def change(d):
        write_json(d/'cxr_llava.json', {})
        then(d)
    return change

def lie(d):
    "The header promises another dtype than the bytes hold"
    b = (d/W).read_bytes()
    (d/W).write_bytes(b.replace(b'"F32"', b'"F16"', 1))

ADAPTER_FAULTS = dict(
    pickle=(lambda d: (d/W).rename(d/'adapter_model.bin'), 'pickle'),
    wrong_base=(nameless(settings(base_model_name_or_path='llava-hf/llava-1.5-7b-hf')), 'was trained on'),
    wrong_commit=(nameless(settings(base_model_name_or_path='someone/else@' + 'a'*40)), 'was trained on'),
    wrong_rank=(settings(r=8), 'says rank 8'),
    missing_keys=(weights(lambda t: dict(sorted(t.items())[2:])), 'lacks 2 of'),
    unexpected_keys=(weights(lambda t: t | {'base_model.model.model.vision_tower.x.lora_A.weight': next(iter(t.values())).clone()}), 'no place for'),
    zero=(weights(lambda t: {k: v*0 if 'lora_B' in k else v for k,v in t.items()}), 'does nothing'),
    truncated=(lambda d: (d/W).write_bytes((d/W).read_bytes()[:-9]), 'only partly there'),
    lying_header=(lie, 'damaged'),
    half=(lambda d: (d/W).unlink(), 'stopped halfway'),
    other_kind=(settings(peft_type='IA3'), 'only LORA'),
    no_matrix=(weights(lambda t: {k: v[:, 0].contiguous() if 'lora_A' in k else v for k,v in t.items()}), 'no matrix'),
    other_width=(weights(lambda t: {k: v[:, :-1].contiguous() if 'lora_A' in k else v for k,v in t.items()}), 'wide'),
    nan=(weights(lambda t: {k: v*float('nan') for k,v in t.items()}), 'NaN'),
    code=(settings(auto_mapping=dict(base_model_class='X', parent_library='their_code')), 'code of its own'),
    two_bases=(settings(base_model_name_or_path='llava-hf/llava-1.5-7b-hf'), 'names two bases'),
    older_tiny=(lambda d: write_json(d/'cxr_llava.json', dict(base='tiny', base_hash='0')), 'another version of the tiny'))

@pytest.mark.parametrize('name', ADAPTER_FAULTS)
def test_adapter_fault(name, tmp_path):
    change, says = ADAPTER_FAULTS[name]
    d = shutil.copytree(tiny_adapter(), tmp_path/'adapter')
    change(d)
    with pytest.raises(CXRError, match=says) as e: load_model(d, base='tiny')
    assert '\n' not in str(e.value)

B = 'model.safetensors'

def base_weights(fn):
    from safetensors.torch import load_file, save_file
    return lambda d: save_file(fn(load_file(d/B)), d/B, metadata=dict(format='pt'))

def infinite(t):
    k = next(k for k in t if 'q_proj' in k)
    return t | {k: t[k]*float('inf')}

def base_settings(**kw): return lambda d: write_json(d/'config.json', read_json(d/'config.json') | kw)

def shortened(config): return config | dict(text_config=config['text_config'] | dict(max_position_embeddings=8))

BASE_FAULTS = dict(
    missing_shard=(lambda d: write_json(d/f'{B}.index.json', dict(weight_map={'a': B, 'b': 'model-00002-of-00002.safetensors'})), 'lacks model-00002'),
    shard_elsewhere=(lambda d: write_json(d/f'{B}.index.json', dict(weight_map={'a': '../../model.safetensors'})), 'lacks ../'),
    half_snapshot=(lambda d: (d/B).unlink(), f'lacks {B}'),
    truncated=(lambda d: (d/B).write_bytes((d/B).read_bytes()[:-1]), 'only partly there'),
    broken_promise=(lambda d: write_json(d/f'{B}.index.json', dict(weight_map={'no.such': B})), 'index promises'),
    pickle=(lambda d: (d/B).rename(d/'pytorch_model.bin'), 'pickled'),
    architecture=(base_settings(model_type='qwen2_vl'), 'not a LLaVA'),
    kind_is_a_list=(base_settings(model_type=['llava']), 'not a LLaVA'),
    link_to_nothing=(lambda d: (d/'z.safetensors').symlink_to('/nowhere'), 'cannot be read'),
    short=(lambda d: write_json(d/'config.json', shortened(read_json(d/'config.json'))), 'cannot take in an X-ray'),
    code=(base_settings(auto_map=dict(AutoModel='theirs--m.M')), 'code of its own'),
    code_of_processor=(lambda d: write_json(d/'processor_config.json', read_json(d/'processor_config.json') | dict(auto_map=dict(AutoProcessor='p.P'))), 'code of its own'),
    nan=(base_weights(infinite), 'NaN or infinite'),
    lost_weight=(base_weights(lambda t: {k: v for k,v in t.items() if 'lm_head' not in k}), 'lacks 1 weights'))

@pytest.mark.parametrize('name', BASE_FAULTS)
def test_base_fault(name, tmp_path):
    change, says = BASE_FAULTS[name]
    d = shutil.copytree(tiny_dir(), tmp_path/'base')
    change(d)
    with pytest.raises(CXRError, match=says) as e: load_model(base=str(d))
    assert '\n' not in str(e.value)

def test_hub_ids_are_pinned_and_offline_is_a_sentence(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    for kw in (dict(lora_repo='someone/adapter'), dict(lora_repo='someone/adapter', revision='main'), dict(base='someone/base')):
        with pytest.raises(CXRError, match='not pinned'): load_model(**kw)
    for kw in (dict(lora_repo='someone/adapter', revision='a'*40), dict(lora_repo='someone/adapter@' + 'a'*40), dict(base='someone/base', revision='b'*40)):
        with pytest.raises(CXRError, match='HF_HUB_OFFLINE'): load_model(**kw)

def test_an_adapter_in_a_moved_folder_still_loads(tmp_path):
    "And says by its hash that it is the same"
    m = load_model(shutil.copytree(tiny_adapter(), tmp_path/'elsewhere'))
    assert m.info['base'] == 'tiny' and m.info['adapter_hash'] == load_model(tiny_adapter()).info['adapter_hash']
    assert json.loads((tmp_path/'elsewhere/adapter_config.json').read_text())['base_model_name_or_path'] == 'cxr_llava/tiny'
