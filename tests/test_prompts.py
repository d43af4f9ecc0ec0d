"Conversations: what is written comes back exactly, what models and other projects write comes back sensibly, and nothing outside a report is answered"
import json, random
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from cxr_llava.report.labels import label_report, TARGETS
from cxr_llava.core.files import CXRError
from cxr_llava.sources.conversations import (
    followup_turns, PromptConfig, read_conversations, report_questions, study_conversation, study_images)
from cxr_llava.vlm.chat_format import (
    _RUNAWAY, EOS, format_answer, IMAGE, make_prompt, neutralise, parse_answer, render_chat, TASKS)
from cxr_llava.core.files import Rejects

line = st.text(st.characters(codec='utf-8', exclude_categories=('Cs',)), max_size=50) | st.sampled_from(['FINDINGS:', 'IMPRESSION:', ' IMPRESSION:', 'Impression: x', '**Findings**', '', '1. Edema.'])
section = st.lists(line, max_size=8).map('\n'.join)

def same(s, f, i): return (s.findings, s.impression) == (f, i)

@settings(max_examples=200, deadline=None)
@given(section | st.none(), section | st.none())
def test_what_is_written_comes_back(f, i):
    if _RUNAWAY.search(f'{f}\n{i}'): return # a report with role tokens is never written
    want = tuple(o.strip() or None if o else None for o in (f, i))
    assert same(parse_answer(format_answer(f, i)), *want)

@settings(max_examples=150, deadline=None)
@given(section)
def test_any_answer_can_be_read(text):
    s = parse_answer(text)
    assert all(o is None or o.strip() for o in (s.findings, s.impression))

F, I = 'The lungs are clear. There is no effusion.', 'No acute process.'
WRITTEN = dict(plain=f'FINDINGS: {F} IMPRESSION: {I}', glued=f'FINDINGS:{F}IMPRESSION:{I}', lower=f'findings: {F}\nimpression: {I}', title=f'Findings: {F} Impression: {I}', bold=f'**Findings:** {F}\n\n**Impression:** {I}',
    bold_out=f'**FINDINGS**: {F}\n**IMPRESSION**: {I}', bold_alone=f'**Findings**\n{F}\n\n**Impression**\n{I}', hashes=f'## Findings\n\n{F}\n\n## Impression\n\n{I}', hashes3=f'### FINDINGS:\n{F}\n### IMPRESSION:\n{I}', conclusion=f'FINDINGS: {F}\nCONCLUSION: {I}',
    json=json.dumps(dict(findings=F, impression=I)), fenced='```json\n' + json.dumps(dict(Findings=F, Impression=I), indent=1) + '\n```', brackets=f'[FINDINGS] {F} \n[IMPRESSION] {I}', tags=f'<findings> {F}\n<impression> {I}', first=f'IMPRESSION: {I}\n\nFINDINGS: {F}',
    eos=f'FINDINGS:\n{F}\n\nIMPRESSION:\n{I}</s>', runaway=f'FINDINGS:\n{F}\n\nIMPRESSION:\n{I} USER: Is there edema? ASSISTANT: No. USER: Findings: x', role=f'ASSISTANT: FINDINGS:\n{F}\n\nIMPRESSION:\n{I}', human=f'FINDINGS:\n{F}\n\nIMPRESSION:\n{I}\n### Human: more',
    llama=f'FINDINGS: {F} IMPRESSION: {I} [INST] again [/INST] FINDINGS: y', im_end=f'FINDINGS: {F}\nIMPRESSION: {I}<|im_end|>', twice=f'FINDINGS: {F} IMPRESSION: {I} FINDINGS: Other. IMPRESSION: Else.', empty_first=f'FINDINGS:\n\nFINDINGS: {F}\nIMPRESSION: {I}',
    unheaded=f'{F}\n\nIMPRESSION:\n{I}', sure=f'Sure! Here is the report:\n\n**FINDINGS:** {F}\n**IMPRESSION:** {I}', crlf=f'FINDINGS:\r\n{F}\r\n\r\nIMPRESSION:\r\n{I}', other=f'INDICATION: Cough.\nFINDINGS: {F}\nIMPRESSION: {I}\nRECOMMENDATION: None.', numbered=f'1. FINDINGS: {F}\n2. IMPRESSION: {I}')

@pytest.mark.parametrize('name', WRITTEN)
def test_what_models_write(name): assert same(parse_answer(WRITTEN[name]), F, I)

@pytest.mark.parametrize('text,f,i', [('', None, None), (None, None, None), ('A chest X-ray.', None, None), ('FINDINGS:', None, None), ('FINDINGS: Clear.', 'Clear.', None), ('IMPRESSION: Normal.', None, 'Normal.'),
    ('Yes, there is edema.', None, None), ('The impression on the esophagus is normal.', None, None), ('FINDINGS:\nIMPRESSION:\nNormal.', None, 'Normal.'), ('FINDINGS FINDINGS FINDINGS', None, None)])
def test_partial_answers(text, f, i): assert same(parse_answer(text), f, i)

@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200) | st.lists(st.sampled_from(['USER:', 'ASSISTANT :', '<image>', '</s>', '<', '>', '<<image>image>', '[INST]', '\n', ' a ']), max_size=12).map(''.join))
def test_outside_text_cannot_change_a_prompt(text):
    s = neutralise(text)
    assert IMAGE not in s and EOS not in s and '\n' not in s and not any(f'{r}:' in s.upper() for r in ('USER', 'ASSISTANT')) and len(s) <= 1000
    assert neutralise(s) == s

ROW = dict(study_id='s1', images=['f.jpg', 'l.jpg'], views=['pa', 'lateral'], findings='Small left pleural effusion. No pneumothorax.', impression='Effusion.', indication='Cough.')

@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('views', ['frontal', 'both', 'all'])
@pytest.mark.parametrize('indication', [True, False])
def test_every_kind_of_conversation(task, views, indication):
    o = study_conversation(ROW, PromptConfig(task=task, views=views, indication=indication), train=False)
    q, a = (t['value'] for t in o['conversations'])
    assert q.count(IMAGE) == (1 if views == 'frontal' else 2) == (1 if isinstance(o['image'], str) else len(o['image']))
    assert ('Cough' in q) == indication and q.endswith(TASKS[task][0])
    assert ('FINDINGS' in a) == (task != 'impression') and ('IMPRESSION' in a) == (task != 'findings')

def test_followups_are_in_the_report():
    reports = [('Small left pleural effusion. No pneumothorax.', 'Effusion.'), ('Cardiomegaly with pulmonary edema. Lungs otherwise clear.', None), ('Possible right pneumonia.', 'Pneumonia is possible.'), ('Clear.', 'Normal.')]
    for f,i in reports:
        labels = label_report(f'{f}\n{i or ""}')
        for q,a in report_questions(f, i, random.Random(1)):
            if a == i: continue
            name = next(o for o in TARGETS if o.lower() in q.lower())
            if a.startswith('On '): assert labels[name] == 1 and (a.split()[-1].strip('.') in f'{f} {i}'.lower() or 'bilateral' in f)
            else: assert labels[name] == (1 if a.startswith('Yes') else 0 if a.startswith('No') else -1)
    assert len(followup_turns(*reports[0], 2, random.Random(0))) == 4 and followup_turns('', '', 3, random.Random(0)) == []

@pytest.mark.parametrize('name,bad', dict(followups=-1, seed=-1, views='top').items())
def test_settings_out_of_range_are_refused(name, bad):
    with pytest.raises(CXRError, match=name): PromptConfig(**{name: bad})

def test_sentences_about_earlier_xrays_are_left_out_of_training_answers_only(tmp_path, capsys):
    import pandas as pd
    from cxr_llava.prompts import make_conversations
    row = dict(ROW, findings='Small left effusion, decreased since the prior study. No pneumothorax.', impression='Effusion.')
    rows = [dict(row, study_id=f's{split}', split=split) for split in ('train', 'val', 'test')]
    rows.append(dict(row, study_id='s4', split='train', findings='Unchanged from the prior study.'))
    pd.DataFrame(rows).to_parquet(tmp_path/'studies.parquet')
    def answers(**settings): return {o['id']: o['conversations'][1]['value'] for v in make_conversations(PromptConfig(run=str(tmp_path), **settings)).values() for o in v}
    whole, dropped = answers(), answers(drop_priors=True)
    assert set(whole) - set(dropped) == {'s4'} # nothing is left of its findings
    assert 'decreased' not in dropped['strain'] and 'No pneumothorax.' in dropped['strain']
    assert all(dropped[o] == whole[o] for o in ('sval', 'stest')) and 'decreased' in whole['strain']
    assert '2 sentences about earlier X-rays left out of training answers' in capsys.readouterr().out

def test_a_report_cannot_carry_template_tokens():
    for bad in ('Clear. <image>', 'Clear.</s>'): assert 'reason' in study_conversation(dict(ROW, findings=bad), PromptConfig())

def test_course_files(tmp_path):
    "Absolute Kaggle paths, sections in separate turns, follow-ups after them"
    for n in (1, 2, 3):
        p = tmp_path/f'mimic-cxr/Main2/p{n}/i{n}.jpg'; p.parent.mkdir(parents=True); Image.new('L', (40, 40), n).save(p)
    def turn(*qa): return [{'from': w, 'value': v} for q,a in qa for w,v in (('human', q), ('gpt', a))]
    recs = [dict(image='/kaggle/input/mimic-cxr/Main2/p1/i1.jpg', conversations=turn(('<image>\nDescribe.', 'FINDINGS: Clear.'), ('And?', 'IMPRESSION: Normal.'), ('Is there edema?', 'No.'))),
        dict(image='/kaggle/input/mimic-cxr/Main2/p2/i2.jpg', conversations=turn(('<image>\nGenerate a chest X-ray report.', 'FINDINGS: Clear. IMPRESSION: Normal.'))),
        dict(image='/kaggle/input/mimic-cxr/Main2/p9/i9.jpg', conversations=turn(('<image>\nx', 'FINDINGS: a'))), dict(image=7), 'x', dict(image='/kaggle/input/mimic-cxr/Main2/p3/i3.jpg', conversations=turn(('<image>\nx', '')))]
    (tmp_path/'train.json').write_text(json.dumps(recs))
    got = read_conversations(tmp_path/'train.json', root=tmp_path/'mimic-cxr')
    assert len(got) == 2
    assert [t['value'] for t in got[0]['conversations']][1:] == ['FINDINGS:\nClear.\n\nIMPRESSION:\nNormal.', 'Is there edema?', 'No.']
    assert got[1]['conversations'][1]['value'] == 'FINDINGS:\nClear.\n\nIMPRESSION:\nNormal.'
    assert got[0]['image'].endswith('Main2/p1/i1.jpg')

def test_chat_spans_cover_the_answers():
    o = study_conversation(ROW, PromptConfig(followups=3))
    text, spans = render_chat(o['conversations'])
    assert [text[a:b] for a,b in spans] == [f' {t["value"].strip()}{EOS}' for t in o['conversations'] if t['from'] == 'gpt']
    assert text.count('USER:') == len(spans)

def test_manifest_of_a_stranger(tmp_path):
    "Whatever lies under that name: a sentence; columns nobody needs are not read, those that may lack may lack"
    import pandas as pd
    from cxr_llava.prompts import make_conversations
    p, cfg = tmp_path/'studies.parquet', PromptConfig(run=str(tmp_path))
    for bad in (b'', b'not parquet', None):
        if bad is None: pd.DataFrame(dict(study_id=['a'], images=[['a.jpg']])).to_parquet(p)
        else: p.write_bytes(bad)
        with pytest.raises(CXRError, match='cannot be read as a manifest'): make_conversations(cfg)
    pd.DataFrame(dict(study_id=[f's{k}' for k in range(5000)], split=['training', 'dev', 'test', 'x', 'train']*1000, images=[['a.jpg']]*5000, findings=[F]*5000, impression=[I]*5000, odd=3)).to_parquet(p)
    res = make_conversations(cfg)
    assert {k: len(v) for k,v in res.items()} == dict(train=2000, val=1000, test=1000) and 'is none of' in (tmp_path/'prompts_rejects.jsonl').read_text()
    assert json.loads((tmp_path/'val.json').read_text()) == res['val']

def test_images_of_a_study():
    assert study_images(dict(images=['l', 'f'], views=['lateral', 'pa']), 'both') == ['f', 'l'] and study_images(dict(images=['l'], views=['lateral']), 'both') == []
    with pytest.raises(CXRError): make_prompt(task='poem')

def test_sections_and_views_of_the_data_stage_hold(tmp_path, capsys):
    "A table of findings with a lateral alone: what the data stage let in is not dropped later, unless asked for"
    from cxr_llava.data import build_dataset, DataConfig
    from cxr_llava.prompts import make_conversations
    for i in range(6): Image.effect_noise((64, 64), 90).save(tmp_path/f'{i}.png')
    (tmp_path/'t.csv').write_text('image,findings,view,patient_id\n' + ''.join(f'{i}.png,Lungs are clear {i}.,{"lateral" if i == 5 else "PA"},{i}\n' for i in range(6)))
    run = str(tmp_path/'r')
    build_dataset(DataConfig(run=run, source='table', path=str(tmp_path/'t.csv'), size=64, workers=1))
    assert sum(map(len, make_conversations(PromptConfig(run=run)).values())) == 6
    assert 'section=any, views=any' in capsys.readouterr().out
    assert sum(map(len, make_conversations(PromptConfig(run=run, views='frontal')).values())) == 5
    assert sum(map(len, make_conversations(PromptConfig(run=run, views='any', section='findings')).values())) == 6
    with pytest.raises(CXRError, match='no impression section'): make_conversations(PromptConfig(run=run, section='both'))

def test_conversations_with_odd_names_and_texts(tmp_path):
    "A name longer than the system takes, half a character, and JSON nested without end"
    Image.new('L', (8, 8)).save(tmp_path/'a.png')
    talk = [{'from': 'human', 'value': f'{IMAGE}\nx'}, {'from': 'gpt', 'value': 'FINDINGS: Clear lungs.\ud83d'}]
    (tmp_path/'t.jsonl').write_text('\n'.join([json.dumps(dict(image='a'*5000 + '.png', conversations=talk)), '['*100_000, json.dumps(dict(image='a.png', conversations=talk))]))
    bad = Rejects()
    [got] = read_conversations(tmp_path/'t.jsonl', root=tmp_path, rejects=bad)
    assert 'Clear lungs.' in got['conversations'][1]['value'].encode().decode() and {o['reason'].split(':')[0] for o in bad} == {'X-ray not found', 'not valid JSON'}
    (tmp_path/'deep.json').write_text('['*100_000)
    with pytest.raises(CXRError, match='not valid JSON'): read_conversations(tmp_path/'deep.json')

@pytest.mark.parametrize('bad', [dict(image='a\0.png'), dict(image='loop'), dict(image='x'*5000), dict(image=5), dict(image=[5]), dict(talk=[{'from': [], 'value': 'x'}])])
def test_one_odd_record_costs_no_other(bad, tmp_path):
    Image.new('L', (8, 8)).save(tmp_path/'a.png')
    (tmp_path/'loop').symlink_to(tmp_path/'loop')
    talk = [{'from': 'human', 'value': f'{IMAGE}\nx'}, {'from': 'gpt', 'value': 'FINDINGS: Clear.'}]
    records = [dict(image=bad.get('image', 'a.png'), conversations=bad.get('talk', talk)), dict(image='a.png', conversations=talk)]
    (tmp_path/'t.json').write_text(json.dumps(records))
    for root in (None, tmp_path):
        rejects = Rejects()
        assert len(read_conversations(tmp_path/'t.json', root=root, rejects=rejects)) == len(rejects) == 1

def test_folder_of_xrays_with_a_name_nobody_can_have():
    from cxr_llava.vlm.folder import find_xrays
    assert find_xrays(['a'*5000]) == ['a'*5000] # named, so handed on: the reader has the sentence
