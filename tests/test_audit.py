"Leaks that are planted are found, nothing else is; the data stage at a hundredth of MIMIC's size, and stopped at any moment"
import json, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps
sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tools'))
import bench_data, mimic_like, score_data
from cxr_llava.sources.split import (
    add_fingerprints, audit_splits, find_ties, group_studies, NEAR_BITS, near_hashes, patients_of,
    refusals, split_patients, text_groups)
from cxr_llava.data import build_dataset, DataConfig
from cxr_llava.sources.manifest import load_manifest
from cxr_llava.sources.prepare import safe_name
from cxr_llava.xray.read import fingerprint, read_xray, save_jpeg
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.prompts import make_conversations
from cxr_llava.sources.conversations import PromptConfig
from cxr_llava.core.files import CXRError

# ---- leaks

def test_six_planted_leaks_and_no_false_alarm():
    found, wrong, _ = score_data.leaks(phantoms=40, size=192, workers=1, say=lambda s: None)
    assert found == dict(patient=1, study=1, pixels=1, mirrored=1, near=1, text=1) and not any(wrong.values())

CHANGES = dict(resized=lambda im: im.resize((im.width*3//4, im.height*3//4), Image.LANCZOS), enlarged=lambda im: im.resize((im.width*3//2, im.height*3//2), Image.BICUBIC), mirrored=ImageOps.mirror,
    mirrored_small=lambda im: ImageOps.mirror(im).resize((im.width*4//5, im.height*4//5), Image.LANCZOS), brighter=lambda im: im.point(lambda v: min(255, int(v*1.1) + 5)), same=lambda im: im,
    squeezed=lambda im: im.resize((224, 224)), padded=lambda im: ImageOps.expand(im, im.width//100, 0), cropped=lambda im: im.crop((3, 3, im.width - 3, im.height - 3)))

@pytest.mark.parametrize('name', CHANGES)
@pytest.mark.parametrize('quality', [95, 50])
def test_changed_copies_are_found(name, quality, tmp_path):
    for i in range(4): save_jpeg(phantom_xray(20 + i, size=256), tmp_path/f'{i}.jpg', 95)
    save_jpeg(CHANGES[name](read_xray(tmp_path/'2.jpg').image), tmp_path/'copy.jpg', quality)
    names = [f'{i}.jpg' for i in range(4)] + ['copy.jpg']
    df = pd.DataFrame(dict(study_id=names, patient_id=names, split=['train']*4 + ['test'], images=[[o] for o in names], findings='a', impression='b', flags=[{}]*5))
    audit = audit_splits(df, tmp_path)
    assert sum(o['leaks'] for o in audit['table'] if o['kind'] in ('pixels', 'mirrored', 'near')) >= 1
    assert {tuple(e[::2]) for o in audit['table'] for e in o['examples']} <= {('2.jpg', 'copy.jpg')}

def test_patient_identity_is_proven_or_not():
    df = pd.DataFrame(dict(study_id=['a', 'b'], patient_id=['p', ''], split=['train', 'test'], findings=None, impression=None))
    assert audit_splits(df)['identity'].startswith('not proven: 1 of 2')
    assert audit_splits(df.assign(patient_id=['p', 'q']))['identity'].startswith('proven')

def test_official_split_with_a_shared_text_only(tmp_path):
    "Two MIMIC patients with the same sentences do not stop the stage; in a table they do"
    audit = dict(identity='proven', table=[dict(kind='text', leaks=3), dict(kind='near', leaks=0)])
    assert refusals(audit, 'mimic', 'official') == 0 and refusals(audit, 'table', 'official') == 3 and refusals(audit, 'mimic', '80/10/10') == 3

def test_resplit_mends_a_leaky_split(tmp_path):
    p = score_data.plant(tmp_path)
    cfg = DataConfig(source='table', path=str(p), run=str(tmp_path/'r'), size=192, workers=1)
    with pytest.raises(CXRError, match='--resplit'): build_dataset(cfg)
    assert not (tmp_path/'r/studies.parquet').exists() and not json.loads((tmp_path/'r/audit.json').read_text())['written']
    df = build_dataset(cfg.replaced(resplit=True))
    assert audit_splits(df, tmp_path/'r')['leaks'] == 0 and set(df.split) == {'train', 'val', 'test'}

# ---- size

@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    d = tmp_path_factory.mktemp('mimic')
    for name,scale in (('one', .01), ('two', .02)): mimic_like.write_tree(d/name, scale, say=lambda s: None)
    return d

def test_twice_the_reports_take_about_twice_the_time(trees):
    "CPU time, with the imports that every run pays taken off"
    quiet = dict(workers=1, say=lambda s: None)
    a, b = (bench_data.bench(trees/o, **quiet) for o in ('one', 'two'))
    base = sum(bench_data.measured([sys.executable, '-c', f'import cxr_llava.{o}, pandas, pyarrow.parquet'])[1] for o in ('data', 'prompts'))
    assert (a['reports'], b['reports']) == (2278, 4557) and (b['cpu_s'] - base)/max(a['cpu_s'] - base, .5) < 3.5, (a, b, base)
    assert b['peak_mb'] < 600

def test_texts_alone_then_everything(trees, tmp_path):
    cfg = DataConfig(source='mimic', path=str(trees/'one'), run=str(tmp_path/'r'), workers=1, prepare=False, section='any')
    df = build_dataset(cfg)
    assert not (tmp_path/'r/images').exists() and all((trees/'one'/p).is_file() for o in df.images for p in o)
    audit = json.loads((tmp_path/'r/audit.json').read_text())
    assert audit['found'] == dict(patients=654, reports=2278, xrays=3771) and audit['split'] == 'official' and 'X-rays were not compared' in ' '.join(audit['notes'])
    assert audit['stats']['classes']['source'] == 'chexpert' and str(trees) not in load_manifest(str(tmp_path/'r')).to_csv()
    res = make_conversations(PromptConfig(run=str(tmp_path/'r'), section='any'))
    assert (trees/'one'/res['train'][0]['image']).is_file()
    whole = build_dataset(cfg.replaced(prepare=True, n=30, size=64))
    assert len(whole) == 30 and all((tmp_path/'r'/p).is_file() for o in whole.images for p in o)

# ---- interruption

def test_killed_at_any_moment_goes_on_to_the_same_bytes():
    assert score_data.kill(times=10, n=24, say=lambda s: None)[::2] == (10, [])

# ---- properties

hashes = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=30)
@settings(max_examples=60, deadline=None)
@given(hashes, st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=6)), max_size=20))
def test_near_hashes_miss_nothing(base, changed):
    h = base + [base[i % len(base)] ^ sum(1 << b for b in bits) for i,bits in changed]
    want = [(i, j) for i in range(len(h)) for j in range(i + 1, len(h)) if bin(h[i] ^ h[j]).count('1') <= NEAR_BITS]
    assert near_hashes([f'{o:016x}' for o in h], [f'{o:016x}' for o in h]) == want

pairs = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=40)
@settings(max_examples=100, deadline=None)
@given(pairs, st.integers(0, 9))
def test_tied_studies_share_a_group_whatever_the_order(ties, seed):
    df = pd.DataFrame(dict(study_id=[f's{i:02}' for i in range(40)]))
    g = group_studies(df, dict(x=ties))
    assert all(g[a] == g[b] for a,b in ties)
    order = np.random.default_rng(seed).permutation(40)
    at = {int(o): k for k,o in enumerate(order)}
    mixed = df.iloc[order].reset_index(drop=True)
    h = group_studies(mixed, dict(x=[(at[b], at[a]) for a,b in reversed(ties)]))
    assert dict(zip(mixed.study_id, h)) == dict(zip(df.study_id, g))

@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=60, max_size=200), st.integers(0, 1000))
def test_shares_are_near_80_10_10(sizes, seed):
    pats = [f'p{i}' for i,n in enumerate(sizes) for _ in range(n)]
    df = pd.DataFrame(dict(study_id=[f's{i}' for i in range(len(pats))], patient_id=pats))
    s = split_patients(df, seed)
    assert s.groupby(df.patient_id).nunique().max() == 1
    assert abs((s == 'test').mean() - .1) < .02 and abs((s == 'val').mean() - .1) < .02

@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_folder_names_are_safe_and_distinct(a, b):
    x, y = safe_name(a), safe_name(b)
    assert (a == b) == (x == y) and '/' not in x and '.' not in x and x and len(x) < 80

@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(['the heart is not enlarged and both lungs are clear ' * 4, 'No effusion. ' * 20, 'Clear.', 'Сердце не увеличено, лёгкие чистые. ' * 8, '']), max_size=8))
def test_same_long_texts_are_grouped(texts):
    df = pd.DataFrame(dict(study_id=[str(i) for i in range(len(texts))], findings=pd.Series(texts, dtype=object), impression=None))
    rare, common = text_groups(df)
    for g in rare + common: assert len({texts[i] for i in g}) == 1 and len(g) > 1
    assert sum(map(len, rare + common)) == sum(texts.count(t) for t in set(texts) if len(t.split()) > 30 and texts.count(t) > 1)
