"The whole job as one call: what it refuses before it works, and what its summary says"
import os, time
import pytest
from cxr_llava import run
from cxr_llava.core.config import command_line
from cxr_llava.score import summary as summaries
from cxr_llava.score.job import preflight, RunConfig
from cxr_llava.core.files import CXRError, write_json, write_jsonl

def test_sources_are_parsed_once(monkeypatch):
    "Help for 80 settings once cost 800 parses, some 10 s before the first word"
    from fastcore import docments
    RunConfig.known()
    monkeypatch.setattr(docments, 'docments', lambda *a, **kw: 1/0)
    command_line(RunConfig)
    assert RunConfig.known()['epochs'][2] == 'finetune: Passes over the data'

def cfg(d, **kw): return RunConfig.load(run=str(d/'run'), **kw)

@pytest.mark.parametrize('kw,words', [(dict(data='no.json'), '--data'), (dict(val='no.json'), '--val'), (dict(data_path='no.json'), '--data_path'),
    (dict(predictions='a.json,no.jsonl'), 'no.jsonl does not exist'), (dict(predictions='a.json', references='no.csv'), '--references'),
    (dict(image_root='no'), '--image_root'), (dict(path='no'), '--path'), (dict(model_path='./no/adapter'), 'no adapter folder'),
    (dict(model_path='owner/name'), 'not pinned'), (dict(data='.'), 'is a folder'), (dict(base='lava'), 'is no base model'), (dict(device='gpu'), 'is no device'),
    (dict(stages='finetune,eval', data='a.json'), 'test.json'), (dict(stages='prompts'), 'cxr_data'), (dict(stages='finetune,prompts'), 'train.json'),
    (dict(stages='data,prompts,eval'), 'adapter'), (dict(seed=2**32), '`seed` must be'), (dict(stages=','), '`stages` names none'), (dict(stages=''), '`stages` names none')])
def test_refused_before_the_first_stage(tmp_path, monkeypatch, kw, words):
    monkeypatch.chdir(tmp_path)
    for stage in ('data', 'prompts'): monkeypatch.delitem(run.STAGES, stage)
    (tmp_path/'a.json').write_text('[]')
    with pytest.raises(CXRError, match=words): run.run_all(cfg(tmp_path, **kw))
    assert not (tmp_path/'run').exists()

def test_what_an_earlier_stage_will_write_is_not_asked_for(tmp_path):
    r = str(tmp_path/'run')
    preflight(cfg(tmp_path, data=f'{r}/train.json', val=f'{r}/val.json', data_path=f'{r}/test.json', image_root=r, model_path=f'{r}/adapter'))
    preflight(cfg(tmp_path, out=str(tmp_path/'else/a')))
    preflight(cfg(tmp_path, model_path='owner/name@' + 'a'*40))

def test_text_of_an_absent_stage_is_not_asked_for(tmp_path):
    preflight(cfg(tmp_path, stages='data', data='no.json', model_path='no'))

def talk(i, text): return dict(id=i, image=f'{i}.png', conversations=[dict(**{'from': 'human'}, value='<image>\nWrite a report.'), dict(**{'from': 'gpt'}, value=text)])

def judged(d, name, texts):
    "A conversation file with its X-rays"
    from PIL import Image
    (d/name).mkdir(parents=True, exist_ok=True)
    for i in texts: Image.new('L', (32, 32)).save(d/name/f'{i}.png')
    write_json(d/name/'test.json', [talk(i, t) for i,t in texts.items()])
    return str(d/name/'test.json')

def test_the_case_is_one_that_was_evaluated(tmp_path):
    judged(tmp_path, 'run', {'a': 'Large left pleural effusion.'})
    other = judged(tmp_path, 'other', {'a': 'No pleural effusion.', 'b': 'Clear.'})
    write_jsonl(tmp_path/'run/predictions/tuned.jsonl', [dict(id='a', text='Normal.', reference='No pleural effusion.'), dict(id='b', text='x', reference='Other.')])
    def case(**kw): return summaries.one_case(cfg(tmp_path, **kw).eval)
    assert case(data_path=other)['reference'] == 'No pleural effusion.'
    assert case() is None # the reports were made for another reference
    assert case(predictions='x.jsonl') is None

def summary(d, stages, since=0, **kw):
    (d/'run').mkdir(exist_ok=True)
    return summaries.summarise(cfg(d, stages=stages, **kw), {'finetune': 1.}, 1., since)

def trained(d, n):
    "The tiny adapter as if `n` conversations had been learned from"
    import shutil
    from cxr_llava.vlm.adapters import read_adapter
    from cxr_llava.vlm.bases import tiny_adapter
    shutil.copytree(tiny_adapter(), d/'adapter', dirs_exist_ok=True, copy_function=shutil.copyfile)
    write_json(d/'finetune.json', dict(conversations=n, base='tiny', adapter_hash=read_adapter(d/'adapter')['hash']))

def test_facts_are_those_of_the_training(tmp_path):
    write_json(tmp_path/'run/train.json', [1]*50)
    write_json(tmp_path/'run/val.json', [1]*50)
    trained(tmp_path/'run', 10)
    facts = summary(tmp_path, 'finetune')['facts']
    assert facts['studies to learn from'] == 10 and not facts['to watch while learning'] and facts['base model'] == 'tiny'
    write_json(tmp_path/'run/finetune.json', dict(conversations=10, adapter_hash='another'))
    assert summary(tmp_path, 'finetune')['facts']['studies to learn from'] is None

def test_the_adapter_recommended_is_the_one_judged(tmp_path, capsys):
    trained(tmp_path/'run', 10)
    trained(tmp_path/'else', 10)
    hub = 'owner/name@' + 'a'*40
    for kw,want in [({}, 'adapter'), (dict(model_path=str(tmp_path/'else/adapter')), '../else/adapter'), (dict(model_path=hub), hub), (dict(out=str(tmp_path/'else/adapter')), '../else/adapter')]:
        s = summary(tmp_path, 'eval', **kw)
        summaries.print_summary(s, tmp_path/'run')
        told = capsys.readouterr().out
        assert s['adapter'] == want and want in (tmp_path/'run/summary.html').read_text()
        assert (hub if want == hub else str((tmp_path/'run'/want).resolve())) in told

def test_nothing_of_an_earlier_run_looks_new(tmp_path, capsys):
    write_json(tmp_path/'run/metrics.json', {})
    write_jsonl(tmp_path/'run/predictions/tuned.jsonl', [])
    since = time.time() + 1
    trained(tmp_path/'run', 10)
    for p in (tmp_path/'run/adapter').iterdir(): os.utime(p, (since, since))
    s = summary(tmp_path, 'finetune', since)
    assert [o['name'] for o in s['files']] == ['adapter'] and [o['name'] for o in s['earlier']] == ['predictions', 'metrics.json']
    summaries.print_summary(s, tmp_path/'run')
    new, old = capsys.readouterr().out.split('There from earlier runs: ')
    assert 'adapter' in new and 'metrics' not in new and old.startswith('predictions, metrics.json')
    assert 'From earlier runs' in (tmp_path/'run/summary.html').read_text()

def test_new_scores_on_its_card_make_no_new_adapter(tmp_path):
    trained(tmp_path/'run', 10)
    card, since = tmp_path/'run/adapter/README.md', time.time() + 1
    card.write_text('scores')
    os.utime(card, (since, since))
    assert not summaries.written(tmp_path/'run', since)
