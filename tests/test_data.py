"Broken records of every kind: each is counted with a reason, the rest is read; splits do not leak; interrupted runs go on"
import io, json, os, shutil
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from cxr_llava.data import build_dataset, DataConfig, main
from cxr_llava.sources.manifest import load_manifest
from cxr_llava.sources.split import audit_splits, split_patients
from cxr_llava.xray.read import save_jpeg
from cxr_llava.xray.drawing import draw_lateral, phantom_xray, sample_body, Truth
from cxr_llava.xray.phantom import make_phantom
from cxr_llava.report.sections import clean_text, join_sections, parse_sections, prior_references
from cxr_llava.core.files import Rejects
from cxr_llava.sources.collections import find_source, iter_openi_csv, iter_table
from cxr_llava.core.files import CXRError
from cxr_llava.core.run_folder import find_artifact

@pytest.fixture(scope='session')
def xrays(tmp_path_factory):
    d = tmp_path_factory.mktemp('xrays')
    for i in range(8): save_jpeg(phantom_xray(i, size=96), d/f'{i}.jpg')
    return d

@pytest.fixture(scope='session')
def small(tmp_path_factory): return make_phantom(tmp_path_factory.mktemp('p')/'phantom', n=40, size=96, workers=1)

def table(tmp_path, xrays, text, name='t.csv'):
    p = tmp_path/name
    p.write_bytes(text if isinstance(text, bytes) else text.encode())
    bad = Rejects()
    return list(iter_table(p, bad, str(xrays))), bad

HEAD = 'image,findings,impression,patient_id\n'
BAD = dict(missing_file=('9.jpg,Clear.,Normal.,a', 'missing'), parent_path=('../0.jpg,Clear.,Normal.,a', '`..`'), no_text=('0.jpg,,,a', 'no sections'), nan_text=('0.jpg,NaN,null,a', 'no sections'),
    blank_text=('0.jpg,   ,\t,a', 'no sections'), few_fields=('0.jpg,Clear.', 'fields'), many_fields=('0.jpg,a,b,c,d,e', 'fields'), no_image=(',Clear.,Normal.,a', 'no X-ray'),
    nan_image=('nan,Clear.,Normal.,a', 'no X-ray'), duplicate=('1.jpg,Clear.,Normal.,a', 'duplicate'), folder=('.,Clear.,Normal.,a', 'missing'), null_byte=('\0,Clear.,Normal.,a', 'no X-ray'),
    very_long=('x' * 5000 + '.jpg,Clear.,Normal.,a', 'cannot be used'), parent_inside=('a/../../0.jpg,Clear.,Normal.,a', '`..`'))

@pytest.mark.parametrize('name', BAD)
def test_bad_row_is_counted(name, tmp_path, xrays):
    row, why = BAD[name]
    good, bad = table(tmp_path, xrays, HEAD + '1.jpg,Lungs clear.,Normal.,p\n' + row + '\n2.jpg,Lungs clear.,Normal.,q\n')
    assert [s.study_id for s in good] == ['1', '2'] and len(bad) == 1 and why in bad[0]['reason'] and bad[0]['where'].startswith('t.csv:')

def test_open_quote_loses_only_what_it_swallows(tmp_path, xrays):
    good, bad = table(tmp_path, xrays, HEAD + '1.jpg,Lungs clear.,Normal.,p\n2.jpg,"open,Normal.,q\n3.jpg,Clear.,Normal.,r\n')
    assert [s.study_id for s in good] == ['1'] and len(bad) == 1

JSONL = dict(cut=('{"image": "1.jpg", "find', 'JSON'), number=('7', 'object'), listed=('[1]', 'object'), null_report=('{"image": "1.jpg", "findings": null, "impression": null}', 'sections'),
    nan=('{"image": "1.jpg", "findings": NaN}', 'sections'), no_image=('{"findings": "Clear."}', 'no X-ray'), null_image=('{"image": null, "findings": "Clear."}', 'no X-ray'),
    bad_image=('{"image": {"a": 1}, "findings": "Clear."}', 'missing'), deep=('[' * 100_000, 'JSON'), bad_split=('{"image": "1.jpg", "findings": "Clear.", "split": "holdout"}', 'split'),
    number_text=('{"image": "9.jpg", "findings": 5}', 'missing'), bad_byte=(b'{"image": "1.jpg", "findings": "caf\xe9", "findings2": }', 'JSON'))

@pytest.mark.parametrize('name', JSONL)
def test_bad_line_is_counted(name, tmp_path, xrays):
    line, why = JSONL[name]
    ok = json.dumps(dict(image='0.jpg', findings='Lungs clear.', impression='Normal.', split='train')).encode()
    good, bad = table(tmp_path, xrays, ok + b'\r\n\r\n' + (line if isinstance(line, bytes) else line.encode()) + b'\n' + ok.replace(b'0.jpg', b'2.jpg'), 't.jsonl')
    assert [s.study_id for s in good] == ['0', '2'] and len(bad) == 1 and why in bad[0]['reason']

@pytest.mark.parametrize('data', [b'\xef\xbb\xbf' + HEAD.encode() + b'1.jpg,Clear.,N.,p', HEAD.replace(',', ';').encode() + b'1.jpg;Clear.;N.;p', HEAD.replace(',', '\t').encode() + b'1.jpg\tClear.\tN.\tp',
    (HEAD + '1.jpg,Clear.,N.,p').encode('utf-16'), (HEAD + '1.jpg,Clear.,N.,p').replace('\n', '\r\n').encode(), HEAD.encode() + b'1.jpg,Clear\xe9.,N.,p', HEAD.encode() + b'1.jpg,"' + b'Long text. '*20000 + b'",N.,p'])
def test_odd_but_good_tables(data, tmp_path, xrays):
    good, bad = table(tmp_path, xrays, data)
    assert len(good) == 1 and not bad and good[0].patient_id == 'p' and 'N.' == good[0].impression

@pytest.mark.parametrize('data,word', [(b'', 'empty'), (b'a,b\n1,2', '--image_col'), (b'image,b\n1,2', '--findings_col'), (b'[{"a":', 'JSON'), (b'\x1f\x8bxx', 'gzip'), (b'image,findings\n', 'no readable row')])
def test_hopeless_table_is_one_sentence(data, word, tmp_path, xrays):
    with pytest.raises(CXRError, match=word): table(tmp_path, xrays, data, 't.json' if data[:1] == b'[' else 't.csv')

def test_one_text_column(tmp_path, xrays):
    good, _ = table(tmp_path, xrays, 'image,text\n1.jpg,FINDINGS: Clear. IMPRESSION: Normal.\n2.jpg,Lungs are clear.\n')
    assert [(s.findings, s.impression) for s in good] == [('Clear.', 'Normal.'), ('Lungs are clear.', None)]

# ---- the stage

def run(**kw): return build_dataset(DataConfig(**{**dict(workers=1, size=64), **kw}))

def test_stage_on_openi_layout(small, tmp_path):
    bad = tmp_path/'bad'; shutil.copytree(small, bad)
    pngs = sorted((bad/'images'/'images_normalized').glob('*'))
    for p in pngs: 
        if p.name.startswith('3_'): p.write_bytes(b'junk')
        if p.name.startswith('5_'): p.unlink()
    t = pd.read_csv(bad/'indiana_reports.csv', dtype=str)
    t.loc[t.uid == '7', ['findings', 'impression']] = None
    t.loc[t.uid == '8', 'findings'] = None
    t = pd.concat([t, t[t.uid == '9']]); t.to_csv(bad/'indiana_reports.csv', index=False)
    df = run(source='openi_csv', path=str(bad), run=str(tmp_path/'r'))
    why = {o.get('id') or o['where']: o['reason'] for o in map(json.loads, (tmp_path/'r/rejects.jsonl').read_text().splitlines())}
    assert set(why) == {'3', '5', '7', '8', '9'} and len(df) == 36
    assert 'missing' in why['5'] and 'no sections' in why['7'] and 'no findings' in why['8'] and 'duplicate' in why['9'] and 'not a picture' in why['3']
    got = load_manifest(str(tmp_path/'r'))
    assert all((tmp_path/'r'/p).is_file() and not os.path.isabs(p) for o in got.images for p in o)
    assert str(tmp_path) not in got.to_csv() and set(got.split) == {'train', 'val', 'test'} and got.groupby('patient_id').split.nunique().max() == 1

def planted(small, tmp_path, split=True):
    d = tmp_path/'leaky'; d.mkdir()
    rows = [dict(image=f'{i}.jpg', findings=f'Finding number {i}.', impression='Normal.', patient_id=f'p{i}', study_id=f's{i}', split='train') for i in range(8)]
    ims = [phantom_xray(i, size=256) for i in range(16)]
    for i in range(8): save_jpeg(ims[i], d/f'{i}.jpg', 95)
    words = 'the quick brown fox jumps over a lazy dog while many small zebras walk along every quiet river bank in order to see where some of those nice old boats might be lying today'
    rows[4]['findings'] = words
    def add(i, im, q=95, **kw): save_jpeg(im, d/f'{i}.jpg', q); rows.append({**dict(image=f'{i}.jpg', findings=f'Finding number {i}.', impression='Normal.', patient_id=f'p{i}', study_id=f's{i}', split='test'), **kw})
    add(8, ims[8], patient_id='p0')
    shutil.copy(d/'1.jpg', d/'9.jpg'); rows.append(dict(rows[-1], image='9.jpg', patient_id='p9', study_id='s9', findings='Finding number 9.'))
    from cxr_llava.xray.read import read_xray
    from PIL import ImageOps
    ImageOps.mirror(read_xray(d/'2.jpg').image).save(d/'10.png'); rows.append(dict(rows[-1], image='10.png', patient_id='p10', study_id='s10', findings='Finding number 10.'))
    add(11, ims[3].resize((ims[3].width*4//5, ims[3].height*4//5)), 70)
    add(12, ims[12], findings=words)
    if not split: [r.pop('split') for r in rows]
    pd.DataFrame(rows).to_csv(d/'t.csv', index=False)
    return d/'t.csv'

def test_planted_leaks_are_found_and_refused(small, tmp_path):
    p = planted(small, tmp_path)
    with pytest.raises(CXRError, match='leaks'): run(source='table', path=str(p), run=str(tmp_path/'r'), size=256)
    a = json.loads((tmp_path/'r/audit.json').read_text())
    assert {o['kind']: o['leaks'] for o in a['table']} == dict(patient=1, study=0, pixels=1, mirrored=1, near=1, text=1) and not (tmp_path/'r/studies.parquet').exists()
    df = run(source='table', path=str(p), run=str(tmp_path/'r'), size=256, allow_leaks=True)
    again = audit_splits(df.assign(study_id=['s0' if s == 's12' else s for s in df.study_id]), tmp_path/'r')
    assert {o['kind']: o['leaks'] for o in again['table']}['study'] == 1

def test_own_split_keeps_ties_together(small, tmp_path):
    df = run(source='table', path=str(planted(small, tmp_path, split=False)), run=str(tmp_path/'r'), size=256)
    assert audit_splits(df, tmp_path/'r')['leaks'] == 0 and df.group.nunique() == 8

def test_order_of_rows_does_not_matter(small, tmp_path):
    other = tmp_path/'o'; shutil.copytree(small, other)
    for n in ('indiana_reports.csv', 'indiana_projections.csv'): pd.read_csv(other/n, dtype=str).sample(frac=1, random_state=3).to_csv(other/n, index=False)
    a, b = (run(source='openi_csv', path=str(p), run=str(tmp_path/n)) for p,n in ((small, 'a'), (other, 'b')))
    assert a.equals(b) and (tmp_path/'a/splits.json').read_bytes() == (tmp_path/'b/splits.json').read_bytes()

@pytest.mark.parametrize('args,word', [(['--path', '/no/such/place'], 'does not exist'), (['--sourse', 'x'], ''), (['--seed', '-1'], 'seed'), (['--seed', str(2**32)], 'seed'), (['--source', 'x'], 'source'), (['--source', 'mimic'], 'attached')])
def test_command_says_one_sentence(args, word, tmp_path, capsys):
    with pytest.raises(SystemExit) as e: main(args + ['--run', str(tmp_path)])
    assert e.value.code == 2 and word in capsys.readouterr().err

def test_nothing_usable(tmp_path, xrays, capsys):
    (tmp_path/'t.csv').write_text('image,findings,impression\n7.jpg,,\n77.jpg,a,b\n')
    with pytest.raises(CXRError, match='No study is left'): run(source='table', path=str(tmp_path/'t.csv'), image_dir=str(xrays), run=str(tmp_path/'r'))
    assert len((tmp_path/'r/rejects.jsonl').read_text().splitlines()) == 2
    (tmp_path/'e').mkdir()
    with pytest.raises(CXRError, match='empty folder'): find_source(tmp_path/'e')

def test_old_conversations_never_meet_new_pictures(tmp_path, capsys):
    "Other studies under the same numbers: what was written about the old ones is moved away, also when the stage dies on its way; unchanged ones stay"
    from cxr_llava.prompts import make_conversations
    from cxr_llava.sources.conversations import PromptConfig
    args = dict(run=str(tmp_path), source='phantom', n=12)
    run(**args)
    make_conversations(PromptConfig(run=str(tmp_path)))
    was = (tmp_path/'test.json').read_bytes()
    run(**args)
    assert (tmp_path/'test.json').read_bytes() == was and not (tmp_path/'set_aside').exists()
    with pytest.MonkeyPatch.context() as m, pytest.raises(KeyboardInterrupt):
        def stop(*_): raise KeyboardInterrupt
        m.setattr('cxr_llava.sources.prepare.resize_xrays', stop)
        run(**args, seed=5)
    assert sorted(o.name.split('-')[0] for o in (tmp_path/'set_aside').iterdir()) == ['test', 'train', 'val']
    assert was in [o.read_bytes() for o in (tmp_path/'set_aside').iterdir()] and 'run `cxr_prompts` again' in capsys.readouterr().out
    with pytest.raises(CXRError, match='cxr_prompts'): find_artifact('test.json', str(tmp_path))

def test_another_split_asks_for_new_conversations(tmp_path, xrays):
    from cxr_llava.prompts import make_conversations
    from cxr_llava.sources.conversations import PromptConfig
    (tmp_path/'t.csv').write_text(HEAD + ''.join(f'{i}.jpg,Lungs clear {i}.,Normal.,{i}\n' for i in range(8)))
    args = dict(run=str(tmp_path/'r'), source='table', path=str(tmp_path/'t.csv'), image_dir=str(xrays))
    run(**args)
    make_conversations(PromptConfig(run=str(tmp_path/'r')))
    run(**args, seed=3)
    assert not (tmp_path/'r/train.json').exists() and len(list((tmp_path/'r/set_aside').iterdir())) == 3

@pytest.mark.parametrize('layout', ['notebooks/o/phantoms', 'datasets/raddar/chest', 'chest-xrays-indiana-university'])
def test_attached_data_is_found(layout, small, tmp_path, monkeypatch):
    shutil.copytree(small, tmp_path/'input'/layout); (tmp_path/'input'/layout/'phantom.json').unlink(missing_ok=True)
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path))
    assert find_source()[0] == 'openi_csv'

@pytest.mark.parametrize('n', [1, 2])
def test_one_or_two_rows(n, tmp_path, xrays):
    (tmp_path/'t.csv').write_text(HEAD + ''.join(f'{i}.jpg,Lungs clear {i}.,Normal.,p{i}\n' for i in range(n)))
    df = run(source='table', path=str(tmp_path/'t.csv'), image_dir=str(xrays), run=str(tmp_path/'r'))
    assert len(df) == n and 'train' in set(df.split) and len(load_manifest(str(tmp_path/'r'))) == n

def test_extra_and_missing_keys(tmp_path, xrays):
    lines = [dict(image='0.jpg', findings='Clear.', impression='Normal.', mood='good'), dict(image='1.jpg', findings='Clear.'), dict(findings='Clear.'), dict(image=['2.jpg', '3.jpg'], findings='Clear.')]
    good, bad = table(tmp_path, xrays, '\n'.join(map(json.dumps, lines)), 't.jsonl')
    assert [(s.study_id, len(s.images)) for s in good] == [('0', 1), ('1', 1), ('2', 2)] and len(bad) == 1

def test_same_xray_under_two_numbers_stays_together(tmp_path, xrays):
    for i in range(4): shutil.copy(xrays/f'{i}.jpg', tmp_path/f'{i}.jpg')
    shutil.copy(xrays/'0.jpg', tmp_path/'9.jpg')
    (tmp_path/'t.csv').write_text(HEAD + ''.join(f'{i}.jpg,Lungs clear {i}.,Normal.,p{i}\n' for i in (0, 1, 2, 3, 9)))
    df = run(source='table', path=str(tmp_path/'t.csv'), run=str(tmp_path/'r')).set_index('study_id')
    assert df.split['0'] == df.split['9'] and df.group['0'] == df.group['9']

def test_unlabelled_lateral_gives_way(tmp_path):
    "Where the view is unknown, what looks like a lateral is not taken when there is another; alone, it is kept with a note"
    for i in range(5): save_jpeg(draw_lateral(Truth(), sample_body(np.random.default_rng(i)), i, 96) if i in (0, 4) else phantom_xray(i, size=96), tmp_path/f'{i}.jpg')
    studies = (['0.jpg', '1.jpg'], ['2.jpg'], ['missing.jpg', '3.jpg'], ['4.jpg'])
    (tmp_path/'t.jsonl').write_text('\n'.join(json.dumps(dict(image=o, findings='Clear.', impression='N.')) for o in studies))
    df = run(source='table', path=str(tmp_path/'t.jsonl'), run=str(tmp_path/'r'), views='frontal')
    assert [o[0] for o in df.images] == ['images/0/2.jpg', 'images/2/1.jpg', 'images/3/1.jpg', 'images/4/1.jpg']
    assert [o.get('xray_notes') for o in df['flags']] == [None, None, None, ['not frontal: looks like a lateral view']]

@pytest.mark.parametrize('kw,word', [(dict(fetch=True, source='mimic'), 'physionet.org'), (dict(fetch=True, source='table'), 'cannot be fetched'), (dict(source='openi_csv', path='/dev/null'), 'indiana_reports.csv')])
def test_stage_says_what_to_do(kw, word, tmp_path):
    with pytest.raises(CXRError, match=word): run(run=str(tmp_path/'r'), **kw)

# ---- properties

texts = st.text(max_size=300)
@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_written_reports_read_back(f, i):
    s = parse_sections(join_sections(f, i))
    assert (s.findings, s.impression) == (clean_text(f), clean_text(i))

words = st.lists(st.sampled_from('FINDINGS: IMPRESSION: findings impression Impression: \n \n\n 1. ** ## : COMPARISON: heart Clear. ___ XXXX ADDENDUM: FINAL REPORT WET READ'.split(' ')), max_size=40).map(' '.join)
@settings(max_examples=300, deadline=None)
@given(words, words)
def test_headings_in_any_place(f, i):
    s = parse_sections(join_sections(f, i))
    assert (s.findings, s.impression) == (clean_text(f), clean_text(i))
    parse_sections(f + i)

@settings(max_examples=200, deadline=None)
@given(st.one_of(texts, words))
def test_cleaning_twice_changes_nothing(s): assert clean_text(clean_text(s)) == clean_text(s)

@settings(max_examples=200, deadline=None)
@given(st.one_of(texts, words))
def test_any_text_parses(s):
    r = parse_sections(s)
    assert all(v is None or isinstance(v, str) for v in vars(r).values())
    assert isinstance(prior_references(s), list)

@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=120), st.integers(0, 5))
def test_splits_never_share_a_patient(pats, seed):
    df = pd.DataFrame(dict(study_id=[f's{i}' for i in range(len(pats))], patient_id=[f'p{o}' for o in pats]))
    s = split_patients(df, seed)
    assert s.groupby(df.patient_id).nunique().max() == 1
    mixed = df.sample(frac=1, random_state=seed)
    assert split_patients(mixed, seed).sort_index().tolist() == s.tolist()
    if df.patient_id.nunique() >= 3: assert set(s) == {'train', 'val', 'test'}

def test_exact_shares():
    df = pd.DataFrame(dict(study_id=[str(i) for i in range(2400)], patient_id=[f'p{i - i%2 if i < 400 else i}' for i in range(2400)]))
    assert split_patients(df).value_counts().to_dict() == dict(train=1920, val=240, test=240)

# ---- tables that are odd in other ways

def test_two_columns_of_one_name_are_told(tmp_path, xrays, capsys):
    good, _ = table(tmp_path, xrays, 'image,findings,findings\n1.jpg,First.,Second.\n')
    assert good[0].findings == 'First.' and 'more than one column is called findings' in capsys.readouterr().out

@pytest.mark.parametrize('data', [b'PK\3\4' + b'x'*99, b'PAR1' + b'x'*99, b'\xd0\xcf\x11\xe0' + b'x'*99])
def test_workbook_is_one_sentence(data, tmp_path, xrays):
    with pytest.raises(CXRError, match='save it as CSV'): table(tmp_path, xrays, data)

def test_text_as_a_list(tmp_path, xrays):
    good, _ = table(tmp_path, xrays, json.dumps(dict(image='1.jpg', findings=['Clear.', 'Normal heart.'], impression='Normal.')), 't.jsonl')
    assert good[0].findings == 'Clear. Normal heart.'

def test_manifest_of_another_project(tmp_path):
    pd.DataFrame(dict(a=[1])).to_parquet(tmp_path/'studies.parquet')
    with pytest.raises(CXRError, match='no manifest of this project'): load_manifest(tmp_path)
    with pytest.raises(CXRError, match='no column split'): audit_splits(pd.DataFrame(dict(study_id=['a'], findings=['x'], impression=['y'])))
    with pytest.raises(CXRError, match='add up to 1'): split_patients(pd.DataFrame(dict(study_id=['a'])), ratios=(.5, .6, .7))

def test_many_alike_rejects_are_one_line():
    bad = Rejects()
    for i in range(9): bad.add(i, f"'{i}.png' is empty (0 bytes): fetch it again."); bad.add(i, f'X-ray file missing: {i}.png')
    assert bad.summary() == '18 left out: 9 x is empty (0 bytes); 9 x X-ray file missing'

def test_name_longer_than_the_system_takes(tmp_path, capsys):
    with pytest.raises(SystemExit) as e: main(['--path', 'a'*5000, '--run', str(tmp_path)])
    assert e.value.code == 2 and 'cannot be used' in capsys.readouterr().err
