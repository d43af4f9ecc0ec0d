"The evaluation: anyone's predictions, bad input, gates, the page, processes that share and processes that die"
import csv, json, os, random, re, shutil, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import pytest
from PIL import Image
from cxr_llava.eval import EvalConfig, evaluate, main
from cxr_llava.score.external import load_pairs, read_texts
from cxr_llava.vlm.chat_format import make_prompt
from cxr_llava.core.files import CXRError, read_json, read_jsonl, write_json, write_jsonl
from cxr_llava.score.systems import CONSTANT, read_items

ENV = os.environ | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', CXR_RUN='', CUDA_VISIBLE_DEVICES='', KAGGLE_KERNEL_RUN_TYPE='', PYTHONWARNINGS='ignore')
WORDS = ['cardiomegaly', 'consolidation', 'edema', 'pleural effusion', 'pneumonia', 'pneumothorax']

def texts(n=30, seed=0):
    rng = random.Random(seed)
    return [f'FINDINGS:\nThere is a {rng.choice(["small", "large"])} {WORDS[i % 6]}. Study number {i}.\n\nIMPRESSION:\n{WORDS[i % 6].capitalize()}.' for i in range(n)]

def pairs(n=30): return [dict(id=f'CXR{i}_IM-{i:04}', prediction=t, reference=t) for i,t in enumerate(texts(n))]

def score(d, predictions, references=None, **kw):
    "By the config, quietly; the content of metrics.json"
    return evaluate(EvalConfig(**dict(dict(run=str(d/'out'), predictions=str(predictions), references=str(references or ''), bootstrap=100) | kw)))

def refused(d, *args):
    "The command's one sentence"
    r = subprocess.run([sys.executable, '-m', 'cxr_llava.eval', '--run', str(d/'out'), '--bootstrap', '50', *map(str, args)], capture_output=True, text=True, env=ENV, timeout=300)
    assert r.returncode == 2, r.stdout[-1000:] + r.stderr[-2000:]
    lines = r.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: '), r.stderr
    assert not (d/'out').exists() or not (d/'out/metrics.json').exists() # nothing was scored
    return lines[0]

def write_csv(p, rows, names=None, **kw):
    with open(p, 'w', newline='', encoding=kw.pop('encoding', 'utf-8')) as f:
        w = csv.writer(f, **kw)
        w.writerow(names or list(rows[0]))
        w.writerows([o.values() for o in rows])
    return p

# Anyone's file

@pytest.mark.parametrize('id_,pred,ref', [('id', 'prediction', 'reference'), ('study_id', 'pred', 'ref'), ('image', 'report', 'gt'), ('Image ID', 'Generated Report', 'Ground Truth'), ('dicom_id', 'text', 'reference'), ('uid', 'generated', 'gts')])
@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'json', 'tsv'])
def test_common_names_in_every_format(tmp_path, id_, pred, ref, kind):
    rows = [{id_: o['id'], pred: o['prediction']} for o in pairs(6)]
    refs = [{id_: o['id'], ref: o['reference']} for o in pairs(6)][::-1]
    def write(name, rows):
        p = tmp_path/f'{name}.{kind}'
        if kind == 'jsonl': return write_jsonl(p, rows)
        if kind == 'json': return write_json(p, rows)
        return write_csv(p, rows, delimiter='\t' if kind == 'tsv' else ',')
    got, _ = load_pairs([write('p', rows)], write('r', refs))
    assert sorted((o['id'], o['text'], o['reference']) for o in got['p']) == sorted((o['id'], o['prediction'], o['reference']) for o in pairs(6))

@pytest.mark.parametrize('make', [lambda d, p: write_json(d/'r.json', {o['id']: o['reference'] for o in p}), lambda d, p: write_json(d/'r.json', {o['id']: [o['reference']] for o in p}),
    lambda d, p: write_json(d/'r.json', dict(train=[dict(id='x', report='y')], test=[dict(id=o['id'], report=o['reference']) for o in p])),
    lambda d, p: write_jsonl(d/'r.jsonl', [dict(id=o['id'], report=o['reference'], split='test') for o in p] + [dict(id='x', report='y', split='train')]),
    lambda d, p: write_json(d/'r.json', [dict(id=o['id'], image='nowhere.png', conversations=[{'from': 'human', 'value': 'q'}, {'from': 'gpt', 'value': o['reference']}]) for o in p]),
    lambda d, p: write_jsonl(d/'r.jsonl', [dict(study_id=o['id'], findings='There is ' + o['id'], impression='None.') for o in p]),
    lambda d, p: write_csv(d/'r.csv', [dict(id=o['id'], report=o['reference']) for o in p], encoding='utf-8-sig')])
def test_shapes_of_references(tmp_path, make):
    got, _ = load_pairs([write_jsonl(tmp_path/'p.jsonl', [dict(id=o['id'], report=o['prediction']) for o in pairs(6)])], make(tmp_path, pairs(6)))
    assert len(got['p']) == 6 and all(o['reference'] for o in got['p'])

def test_published_form_590_pairs_by_one_command(tmp_path):
    "A CSV of `report,dicom_id` with few distinct texts against references by id: scored, and no headline for a collapsed model"
    n = 590
    refs = write_jsonl(tmp_path/'refs.jsonl', [dict(id=f'CXR{i}', reference=t.split('\n')[1]) for i,t in enumerate(texts(n))])
    canned = ['the lungs are clear. no pleural effusion or pneumothorax.', 'heart size is normal. no acute disease, no effusion.']
    preds = write_csv(tmp_path/'theirs.csv', [dict(report=canned[i % 2], dicom_id=f'CXR{i}') for i in range(n)])
    r = subprocess.run([sys.executable, '-m', 'cxr_llava.eval', '--predictions', preds, '--references', refs, '--run', tmp_path/'out'], capture_output=True, text=True, env=ENV, timeout=300)
    assert r.returncode == 0, r.stderr
    m = read_json(tmp_path/'out/metrics.json')
    assert m['headline']['status'] == 'withheld' and m['gates']['distinct']['status'] == 'fail' and m['gates']['stopped']['status'] == 'not judged'
    assert m['systems']['theirs']['n'] == 590 and 'n=590' in r.stdout and 'not judged' in r.stdout
    assert r.stdout.index('Distinct reports') < r.stdout.index('macro 6')
    assert m['systems']['theirs']['health']['distinct_count'] == 2 and m['systems']['theirs']['clinical']['Edema']['sensitivity'] == 0

def test_two_systems_are_compared(tmp_path):
    p = pairs(30)
    refs = write_jsonl(tmp_path/'r.jsonl', [dict(id=o['id'], ref=o['reference']) for o in p])
    a, b = (write_jsonl(tmp_path/f'{k}.jsonl', [dict(id=o['id'], pred=o['prediction'] if (i + 1) % m else CONSTANT, patient=i//2) for i,o in enumerate(p)]) for k,m in (('good', 100), ('bad', 2)))
    m = score(tmp_path, f'{a},{b}', refs)
    d = m['differences']['good - bad']['f1 macro 6']
    assert 0 < d['lo'] <= d['value'] <= d['hi'] and d['p'] < .01
    assert set(m['systems']) == {'good', 'bad'} and m['provenance']['references_hash'] and m['systems']['good']['made']['sha256']
    assert m['systems']['good']['sections']['impression']['macro'] == 1 and 'findings and impression (30 of 30)' in m['provenance']['target']

@pytest.mark.parametrize('where', ['references', 'predictions'])
def test_patients_are_the_unit_wherever_they_are_named(tmp_path, where):
    "Ten studies of two patients: intervals over patients, also when only the predictions say whose studies these are"
    p = pairs(10)
    who = {k: [dict(patient_id=f'P{i//5}') if k == where else {} for i in range(10)] for k in ('references', 'predictions')}
    refs = write_jsonl(tmp_path/'r.jsonl', [dict(id=o['id'], ref=o['reference']) | w for o,w in zip(p, who['references'])])
    preds = write_jsonl(tmp_path/'p.jsonl', [dict(id=o['id'], pred=o['prediction']) | w for o,w in zip(p, who['predictions'])])
    assert set(load_pairs([preds], refs)[1].values()) == {'P0', 'P1'}
    assert score(tmp_path, preds, refs)['provenance']['units'] == '2 patients'

def test_packed_files_and_columns_of_pandas(tmp_path):
    import gzip
    import pandas as pd
    p = pd.DataFrame(pairs(6)).rename(columns=dict(prediction='model_prediction', reference='gt_report'))
    p[['id', 'gt_report']].to_csv(tmp_path/'r.csv.gz', index=False)
    p[['id', 'model_prediction']].to_json(tmp_path/'columns.json')
    p[['id', 'model_prediction']].to_json(tmp_path/'lines.jsonl.gz', orient='records', lines=True)
    (tmp_path/'wrapped.json').write_text(json.dumps(dict(results=p[['id', 'model_prediction']].to_dict('records'))))
    got, _ = load_pairs([tmp_path/n for n in ('columns.json', 'lines.jsonl.gz', 'wrapped.json')], tmp_path/'r.csv.gz')
    assert list(got) == ['columns', 'lines', 'wrapped'] and all([o['text'] for o in rows] == list(p.model_prediction) for rows in got.values())
    cut = gzip.compress(b'id,pred,ref\na,b,c\n')[:-9]
    (tmp_path/'cut.csv.gz').write_bytes(cut)
    with pytest.raises(CXRError, match='cut or damaged'): load_pairs([tmp_path/'cut.csv.gz'])

def test_whole_numbers_as_ids_after_pandas_made_them_decimal(tmp_path):
    rows = [dict(study_id=f'5{i}.0', pred=o['prediction']) for i,o in enumerate(pairs(4))]
    refs = [dict(study_id=f'5{i}', ref=o['reference']) for i,o in enumerate(pairs(4))]
    assert len(load_pairs([write_csv(tmp_path/'p.csv', rows)], write_csv(tmp_path/'r.csv', refs))[0]['p']) == 4

def test_copies_of_the_references_are_said_aloud(tmp_path, capsys):
    "A column mixed up: scored, but the terminal and the page say first that these are the references themselves"
    p = pairs(24)
    def preds(k): return write_jsonl(tmp_path/f'p{k}.jsonl', [o | dict(prediction=o['prediction'] if i < k else o['prediction'].replace('Study', 'Case')) for i,o in enumerate(p)])
    assert 'warnings' not in score(tmp_path, preds(12))
    m = score(tmp_path, preds(13))
    assert m['warnings'] == [w for w in m['warnings'] if w.startswith('13 of the 24 reports of p13 are their references word for word')]
    assert len(m['warnings']) == 1 and m['warnings'][0] in capsys.readouterr().out and 'word for word' in (tmp_path/'out/report.html').read_text()

# Bad input: one sentence, exit code 2, nothing scored

def test_ids_that_do_not_match(tmp_path):
    p = pairs(12)
    refs = write_jsonl(tmp_path/'r.jsonl', [dict(id=o['id'], ref=o['reference']) for o in p])
    def preds(rows): return write_jsonl(tmp_path/'p.jsonl', [dict(id=o['id'], pred=o['prediction']) for o in rows])
    assert '2 studies without a prediction' in refused(tmp_path, '--predictions', preds(p[2:]), '--references', refs)
    assert '1 predictions without a reference' in refused(tmp_path, '--predictions', preds(p + [dict(id='new', prediction='x')]), '--references', refs)
    for rows,words in ((p + p[:1], 'repeats 1 of its ids'), ([o | dict(id=o['id'] + 'x') for o in p], 'different studies')):
        with pytest.raises(CXRError, match=words): score(tmp_path, preds(rows), refs)
    m = score(tmp_path, preds(p[2:]), refs, intersection=True)
    assert m['systems']['p']['n'] == 10 and 'intersection' in m['warnings'][0] and 'Only the intersection' in (tmp_path/'out/report.html').read_text()

def test_a_whole_data_set_as_references(tmp_path):
    "The Kaggle CSV of Open-i beside predictions for a few of its studies; some of its reports are empty"
    p = pairs(8)
    refs = write_csv(tmp_path/'indiana_reports.csv', [dict(uid=o['id'], MeSH='normal', image='Xray', findings='' if i == 5 else o['reference'].split('\n')[1], impression='') for i,o in enumerate(p)])
    f = write_jsonl(tmp_path/'p.jsonl', [dict(id=o['id'], report=o['prediction']) for o in p[:6]])
    with pytest.raises(CXRError, match='2 studies without a prediction'): score(tmp_path, f, refs)
    assert score(tmp_path, f, refs, intersection=True)['systems']['p']['n'] == 5
    with pytest.raises(CXRError, match='1 of 8 references are empty'): score(tmp_path, write_jsonl(tmp_path/'q.jsonl', [dict(id=o['id'], report=o['prediction']) for o in p]), refs)

def test_duplicate_references_and_repeated_files(tmp_path):
    p = pairs(3)
    f = write_jsonl(tmp_path/'p.jsonl', p)
    with pytest.raises(CXRError, match='repeats 1 of its ids'): score(tmp_path, f, write_jsonl(tmp_path/'r.jsonl', p + p[:1]))
    assert list(load_pairs([f, f])[0]) == ['p', 'p-2']

@pytest.mark.parametrize('bad,words', [(None, 'not a text'), (float('nan'), 'not a text'), ('nan', 'not a text'), (3, 'not a text'), (['a', 'b'], 'not a text'), ({'a': 1}, 'not a text'), (True, 'not a text')])
def test_values_that_are_no_text(tmp_path, bad, words):
    for k in ('prediction', 'reference'):
        rows = pairs(4)
        rows[2][k] = bad
        with pytest.raises(CXRError, match=words) as e: score(tmp_path, write_jsonl(tmp_path/'p.jsonl', rows))
        assert k in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('text,words', [('{"id": "a", "pred": "b", "ref": "c"}\n{"id": "b", "pr', 'line 2 is not valid JSON'), ('', 'is empty'), ('id,pred,ref\n', 'no rows'), ('id,pred,ref\na,b,c,d\n', '4 fields'),
    ('[{"id": 1,]', 'not valid JSON'), ('"just text"', 'no rows'), ('[1, 2]', 'not a record'), ('pred,ref2\na,b\n', 'no id'), ('id,words\na,b\n', 'no prediction'), ('{"id": "a", "pred": "b"}\n[1]\n', 'not a record'), ('id,pred\na,b\n', 'has no references')])
def test_broken_files(tmp_path, text, words):
    (tmp_path/'p.txt').write_text(text)
    with pytest.raises(CXRError, match=re.escape(words)) as e: score(tmp_path, tmp_path/'p.txt')
    assert '\n' not in str(e.value)

def test_binary_folder_missing(tmp_path):
    (tmp_path/'b.csv').write_bytes(b'\x89PNG\r\n\x1a\n\x00\xff')
    for p,words in ((tmp_path/'b.csv', 'not UTF-8'), (tmp_path, 'is a folder'), (tmp_path/'no.csv', 'does not exist')):
        with pytest.raises(CXRError, match=words): score(tmp_path, p)

def test_empty_predictions_are_scored_as_such(tmp_path):
    rows = pairs(30)
    for o in rows[:6]: o['prediction'] = ''
    m = score(tmp_path, write_csv(tmp_path/'p.csv', rows))
    s = m['systems']['p']
    assert s['n'] == 30 and s['health']['empty'] == 6 and abs(s['clinical']['micro 6']['sensitivity'] - .8) < 1e-9 and m['gates']['sections']['status'] == 'fail'
    for o in rows: o['prediction'] = ' '
    with pytest.raises(CXRError, match='All 30 reports in .* are empty'): score(tmp_path, write_csv(tmp_path/'p.csv', rows))

def test_other_languages(tmp_path):
    rows, spanish = pairs(30), 'No hay derrame pleural ni neumotórax. El corazón es de tamaño normal. Estudio {}.'
    m = score(tmp_path, write_jsonl(tmp_path/'p.jsonl', [o | dict(prediction=spanish.format(i)) for i,o in enumerate(rows)]))
    assert m['gates']['english']['status'] == 'fail' and m['headline']['status'] == 'withheld'
    with pytest.raises(CXRError, match='30 of 30 references do not read as English'): score(tmp_path, write_jsonl(tmp_path/'p.jsonl', [o | dict(reference=spanish.format(i)) for i,o in enumerate(rows)]))

def test_predictions_of_another_split(tmp_path):
    p = write_jsonl(tmp_path/'p.jsonl', [dict(id=f's{i}', text='Clear.') for i in range(4)])
    write_json(tmp_path/'p.meta.json', dict(references='0'*12))
    assert 'another split' in refused(tmp_path, '--predictions', p, '--references', write_jsonl(tmp_path/'r.jsonl', [dict(id=f't{i}', ref='Clear.') for i in range(4)]))
    with pytest.raises(CXRError, match='another split'): score(tmp_path, p, write_jsonl(tmp_path/'r.jsonl', [dict(id=f's{i}', ref='Other words.') for i in range(4)])) # same ids
    q = write_jsonl(tmp_path/'q.jsonl', [dict(id=f's{i}', text='Clear.', reference='Other.') for i in range(4)])
    with pytest.raises(CXRError, match='carries other references'): score(tmp_path, q, write_jsonl(tmp_path/'r.jsonl', [dict(id=f's{i}', ref='Clear.') for i in range(4)]))

def test_references_are_never_cut(tmp_path):
    "A finding after 10,000 words is found"
    long = 'The lungs are clear. '*2500 + 'There is a large pneumothorax.'
    m = score(tmp_path, write_jsonl(tmp_path/'p.jsonl', [dict(id='a', pred=long, ref=long), dict(id='b', pred='Clear.', ref='Clear.')]))
    assert m['systems']['p']['clinical']['Pneumothorax']['support'] == 1 and m['systems']['p']['clinical']['Pneumothorax']['f1'] == 1

# The page

EVIL = '<script>alert(1)</script><img src=x onerror=alert(1)>" onmouseover="alert(1)\'</style><svg onload=alert(1)>'

def test_nothing_said_becomes_markup(tmp_path):
    rows = [o | dict(prediction=f'{EVIL} {o["prediction"]}', id=f'{EVIL}{i}') for i,o in enumerate(pairs(30))]
    f = write_jsonl(tmp_path/'<b onclick=x>&.jsonl', rows)
    write_json(f.with_suffix('.meta.json'), {EVIL: EVIL})
    score(tmp_path, f)
    html = (tmp_path/'out/report.html').read_text()
    for o in ('<script', '<img src=x', '<svg onload', '<b onclick', 'onmouseover="'): assert o not in html, o
    assert html.count('</style>') == 1 and '&lt;script&gt;' in html

def test_page_asks_nobody_and_says_everything(tmp_path):
    rows = [o | dict(prediction=CONSTANT) if i % 3 == 0 else o for i,o in enumerate(pairs(30))]
    m = score(tmp_path, write_jsonl(tmp_path/'p.jsonl', rows))
    html = (tmp_path/'out/report.html').read_text()
    for o in ('src="http', 'href=', '<link', '@import', 'url(', '<iframe'): assert o not in html, o
    order = ['May these numbers be believed?', 'class="headline', 'Six target pathologies', 'Label against label', 'Where it went wrong', 'How each system was made']
    at = [html.index(o) for o in order]
    assert at == sorted(at)
    assert 'prefers-color-scheme:dark' in html
    assert f'n={m["provenance"]["n"]}' in html and '95 % bootstrap interval' in html

# A model's own systems

class Fake:
    "Reads what is written in the grey of the picture"
    info, max_new_tokens = dict(base='none', adapter='fake', adapter_hash='fake'), 99
    def __init__(self, d, blind=False): self.known, self.blind, self.calls = {i: t for i,t in enumerate(texts(30))}, blind, 0
    def generate_reports(self, srcs, batch_size=8, prompts=None, max_new_tokens=None):
        self.calls += 1
        grey = [(s[0] if isinstance(s[0], Image.Image) else Image.open(s[0])).getpixel((0, 0)) for s in srcs]
        return [SimpleNamespace(text=self.known.get(7*i % 30 if self.blind else (g - 60)//4, CONSTANT) if self.blind or 60 <= g < 180 else CONSTANT, stopped=True) for i,g in enumerate(grey)]

@pytest.fixture
def split(tmp_path):
    q = {'from': 'human', 'value': '<image>\n' + make_prompt()}
    for i in range(30): Image.new('L', (64, 64), 4*i + 60).save(tmp_path/f'{i}.png')
    write_json(tmp_path/'test.json', [dict(id=f's{i}', image=f'{i}.png', conversations=[q, {'from': 'gpt', 'value': t}]) for i,t in enumerate(texts(30))])
    return tmp_path

def test_probes_and_guests(split):
    cfg = EvalConfig(run=str(split), data_path=str(split/'test.json'), bootstrap=200)
    write_jsonl(split/'predictions/guest.jsonl', [dict(id=f's{i}', report='Edema.') for i in range(30)])
    write_jsonl(split/'predictions/stray.jsonl', [dict(id='other', report='Edema.')])
    write_jsonl(split/'predictions/alien.jsonl', [dict(id=f's{i}', report='Edema.') for i in range(30)])
    write_json(split/'predictions/alien.meta.json', dict(references='0'*12))
    m = evaluate(cfg, model=Fake(split))
    assert {'tuned', 'base', 'shuffled', 'blank', 'noise', 'constant', 'guest'} == set(m['systems'])
    assert all(m['gates'][k]['status'] == 'pass' and m['gates'][k]['lo'] > 0 for k in ('shuffled', 'blank', 'noise'))
    assert set(m['provenance']['not_scored']) == {'stray', 'alien'}
    for s in ('tuned', 'blank', 'constant'):
        made = read_json(split/f'predictions/{s}.meta.json')
        assert made['split'] and made['references'] and made['made'] and made['versions']
    assert m['systems']['tuned']['made']['decoding']['method'] == 'greedy'

def test_a_model_that_does_not_look_gets_no_headline(split):
    m = evaluate(EvalConfig(run=str(split), data_path=str(split/'test.json'), bootstrap=200), model=Fake(split, blind=True))
    assert m['headline']['status'] == 'withheld'

def test_without_probes_the_gates_say_so(split):
    m = evaluate(EvalConfig(run=str(split), data_path=str(split/'test.json'), bootstrap=50, probes=False), model=Fake(split))
    assert m['headline']['status'] == 'provisional' and m['gates']['noise']['status'] == 'not judged' and '--no-probes' in m['gates']['noise']['text']

@pytest.mark.parametrize('kw,why', [(dict(bootstrap=0), '--bootstrap 0'), (dict(num_samples=1), 'fewer than two patients')])
def test_without_intervals_the_page_says_so(split, kw, why):
    m = evaluate(EvalConfig(run=str(split), data_path=str(split/'test.json'), **kw), model=Fake(split))
    assert m['warnings'] == [f'No intervals and no paired tests: {why}.'] and m['provenance']['intervals'] == m['provenance']['tests'] == f'none: {why}'
    assert all(d[k]['p'] is None and d[k]['lo'] is None for d in m['differences'].values() for k in d)
    assert m['warnings'][0] in (split/'report.html').read_text() and 'NaN' not in (split/'metrics.json').read_text() and '>nan' not in (split/'report.html').read_text()
    if not kw.get('num_samples'): assert '(no interval)' in m['headline']['text'] and 'without an interval' in m['gates']['blank']['text']

@pytest.mark.parametrize('args,word', [(('--seed', '-1'), 'seed'), (('--seed', str(2**32)), 'seed'), (('--train_path', 'nowhere.json'), 'nowhere.json')])
def test_a_bad_setting_moves_nothing(split, args, word):
    write_jsonl(split/'out/predictions/tuned.jsonl', [dict(id='s0', text='Edema.')])
    assert word in refused(split, '--data_path', split/'test.json', *args)
    assert [o.name for o in (split/'out/predictions').iterdir()] == ['tuned.jsonl']

# Processes, with the tiny model

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "Twelve phantoms and an adapter of random weights"
    from cxr_llava.vlm.adapters import random_adapter
    from cxr_llava.xray.drawing import phantom_xray
    d = tmp_path_factory.mktemp('tiny')
    q = {'from': 'human', 'value': '<image>\n' + make_prompt()}
    for i in range(12): phantom_xray(i, size=96).save(d/f'{i}.png')
    write_json(d/'test.json', [dict(id=f's{i}', image=f'{i}.png', conversations=[q, {'from': 'gpt', 'value': t}]) for i,t in enumerate(texts(12))])
    random_adapter(d/'adapter')
    return d

def judged(d, run, adapter='', **kw):
    return evaluate(EvalConfig(**dict(run=str(run), model_path=str(adapter), data_path=str(d/'test.json'), bootstrap=0, max_new_tokens=8, num_samples=2, probes=False, compare_baseline=False, baselines='constant') | kw))

def test_baselines_learn_from_what_the_model_learned_from(tiny, tmp_path):
    "Other conversations than train.json, and only the first so many: found by the fingerprint the adapter carries"
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    from cxr_llava.train.batch import encode_records
    from cxr_llava.train.batch import data_hash
    from cxr_llava.sources.conversations import read_conversations
    own, other = write_json(tmp_path/'own.json', [o | dict(image=str(tiny/o['image'])) for o in read_json(tiny/'test.json')]), tmp_path/'train.json'
    write_json(other, read_json(own)[::-1])
    shutil.copytree(tiny/'adapter', tmp_path/'adapter')
    told = dict(data_hash=data_hash(encode_records(read_conversations(own)[:5], load_processor(tiny_dir()))), settings=dict(limit=5, max_len=1024))
    write_json(tmp_path/'adapter/cxr_llava.json', read_json(tmp_path/'adapter/cxr_llava.json') | told)
    m = judged(tiny, tmp_path, tmp_path/'adapter', baselines='neighbour', train_path=str(own))
    assert not [w for w in m['warnings'] if 'baselines' in w]
    assert {o['text'] for o in read_jsonl(tmp_path/'predictions/neighbour.jsonl')[0]} <= {o['conversations'][1]['value'] for o in read_json(own)[:5]}
    m = judged(tiny, tmp_path, tmp_path/'adapter', baselines='neighbour')
    assert [w for w in m['warnings'] if w.startswith('The baselines learned from train.json')]
    assert not [w for w in judged(tiny, tmp_path, tiny/'adapter', baselines='neighbour')['warnings'] if 'baselines' in w] # it does not say

def test_an_unfinished_and_an_older_adapter_are_named(tiny, tmp_path, capsys):
    from cxr_llava.train.publish import publish, PublishConfig
    shutil.copytree(tiny/'adapter', tmp_path/'adapter')
    write_json(tmp_path/'adapter/cxr_llava.json', read_json(tmp_path/'adapter/cxr_llava.json') | dict(finished=False, steps=1, total_steps=9))
    write_json(tmp_path/'summary.json', dict(adapter='../elsewhere/adapter'))
    said = 'The adapter found is not the one that the last cxr_run of this folder wrote (../elsewhere/adapter): name the one you mean.'
    m = judged(tiny, tmp_path)
    assert m['warnings'][:2] == ['The adapter is not finished: step 1 of 9.', said]
    assert m['provenance']['model']['finished'] is False
    assert 'The adapter is not finished' in (tmp_path/'report.html').read_text() and capsys.readouterr().out.count(said) == 2
    publish(PublishConfig(run=str(tmp_path), merge=str(tmp_path/'merged')))
    assert said in capsys.readouterr().out
    assert len(judged(tiny, tmp_path, tmp_path/'adapter')['warnings']) == 2 # named on purpose
    write_json(tmp_path/'summary.json', dict(adapter='adapter'))
    assert not [w for w in judged(tiny, tmp_path)['warnings'] if 'cxr_run' in w]

def command(d, run, *args): return [sys.executable, '-m', 'cxr_llava.eval', '--run', str(run), '--model_path', str(d/'adapter'), '--data_path', str(d/'test.json'), '--bootstrap', '50', '--batch_size', '2',
    '--max_new_tokens', '8', '--no-probes', '--baselines', 'constant', *args]

@pytest.fixture(scope='module')
def killed(tiny, tmp_path_factory):
    "A run that was killed while it wrote reports and started again: what was there before, what the second run said, and its folder"
    run = tmp_path_factory.mktemp('killed')
    cmd, file = command(tiny, run, '--num_samples', '10'), run/'predictions/tuned.jsonl'
    p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV)
    t = time.time()
    while (not file.exists() or file.read_text().count('\n') < 2) and p.poll() is None and time.time() - t < 300: time.sleep(.05)
    p.send_signal(signal.SIGKILL), p.wait()
    before = read_jsonl(file)[0]
    with open(file, 'a') as f: f.write('{"id": "half')
    return before, subprocess.run(cmd, capture_output=True, text=True, env=ENV, timeout=500), run

def test_killed_while_predicting_goes_on(killed):
    before, r, run = killed
    assert r.returncode == 0, r.stderr
    rows = read_jsonl(run/'predictions/tuned.jsonl')[0]
    assert len(before) >= 2 and rows[:len(before)] == before and len(rows) == len({o['id'] for o in rows}) == 10
    if len(before) < 10: assert f'tuned: {len(before)} of 10 reports are on disk, going on' in r.stdout
    m = read_json(run/'metrics.json')
    assert {'tuned', 'base', 'constant'} == set(m['systems']) and m['provenance']['n'] == 10 and m['provenance']['sample'].startswith('10 drawn')

def test_two_processes_write_what_one_writes(tiny, killed, tmp_path):
    "And a part left by processes that died is taken up"
    rows = {o['id']: o for o in read_jsonl(killed[2]/'predictions/tuned.jsonl')[0]}
    some = next(iter(rows.values()))
    meta = read_json(killed[2]/'predictions/tuned.meta.json')
    write_jsonl(tmp_path/'predictions/tuned.part1.jsonl', [some | dict(text='Left by another process.')])
    write_json(tmp_path/'predictions/tuned.meta.json', meta)
    r = subprocess.run(command(tiny, tmp_path, '--num_samples', '10', '--processes', '2', '--no-compare_baseline'), capture_output=True, text=True, env=ENV, timeout=500)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    got = {o['id']: o['text'] for o in read_jsonl(tmp_path/'predictions/tuned.jsonl')[0]}
    assert got == {k: o['text'] for k,o in rows.items()} | {some['id']: 'Left by another process.'}
    assert not list((tmp_path/'predictions').glob('*.part*')) and (tmp_path/'report.html').exists()

def test_what_stops_several_processes_is_said_once(tmp_path): assert 'cxr_prompts' in refused(tmp_path, '--processes', '2')
