"Every source in every place it may lie, fetched over a bad network, with every kind of broken record"
import http.server, io, json, os, sys, tarfile, threading, zipfile, gzip
from pathlib import Path
import pytest
from hypothesis import given, settings, strategies as st
sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tools'))
import mimic_like
from cxr_llava.sources.fetch import download, unpack
from cxr_llava.xray.read import save_jpeg
from cxr_llava.sources.mimic import iter_mimic, iter_mimic_csv
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.xray.phantom import make_phantom
from cxr_llava.sources.lookup import Files
from cxr_llava.sources.tables import decoded, read_rows
from cxr_llava.sources.collections import (
    attached_sources, compare_counts, fetch_source, find_source, iter_course, iter_openi_xml, iter_table,
    open_source)
from cxr_llava.core.files import CXRError, Rejects, sha256
from cxr_llava.core.processes import map_jobs

XRAY = phantom_xray(1, size=64)

# ---- one small collection of each kind

XML = '''<eCitation><uId id="CXR{0}"/><MedlineCitation><Article><Abstract><AbstractText Label="INDICATION">Cough</AbstractText><AbstractText Label="FINDINGS">Clear XXXX {0}.</AbstractText>
<AbstractText Label="IMPRESSION">Normal.</AbstractText></Abstract></Article></MedlineCitation><MeSH><major>normal</major></MeSH><parentImage id="CXR{0}_IM-{0}-1001"/></eCitation>'''

def talk(*answers, ask='<image>\nGenerate a chest X-ray report.'): return [t for a in answers for t in ({'from': 'human', 'value': ask}, {'from': 'gpt', 'value': a})]

def openi_xml(d):
    (d/'ecgen-radiology').mkdir(parents=True); (d/'png').mkdir()
    for i in range(1, 4):
        (d/f'ecgen-radiology/{i}.xml').write_text(XML.format(i))
        XRAY.save(d/f'png/CXR{i}_IM-{i}-1001.png')

def openi_tgz(d):
    d.mkdir(parents=True)
    with tarfile.open(d/'NLMCXR_reports.tgz', 'w:gz') as t, tarfile.open(d/'NLMCXR_png.tgz', 'w:gz') as u:
        b = io.BytesIO(); XRAY.save(b, 'PNG')
        for i in range(1, 4):
            for tar,name,data in ((t, f'ecgen-radiology/{i}.xml', XML.format(i).encode()), (u, f'CXR{i}_IM-{i}-1001.png', b.getvalue())):
                m = tarfile.TarInfo(name); m.size = len(data); tar.addfile(m, io.BytesIO(data))

def mirror(d):
    x = [f'files/p10/p1001/{o}.jpg' for o in ('s51/a', 's51/b', 's52/c')]
    for o in x: save_jpeg(XRAY, d/'official_data_iccv_final'/o)
    row = f'1001,"{x}","[]","{x[1:2]}","{x[:1]}","{["Findings: Clear. Impression: Normal.", "Findings: Opacity. Impression: Pneumonia."]}"\n'
    (d/'mimic_cxr_aug_train.csv').write_text('subject_id,image,AP,PA,Lateral,text\n' + row)

def course(d, with_json=True):
    for i in range(1, 4): save_jpeg(XRAY, d/f'Main{"2" if i > 2 else ""}/p{i}/i{i}.jpg')
    if with_json: course_json(d)

def course_json(d):
    d.mkdir(parents=True, exist_ok=True)
    (d/'train (1).json').write_text(json.dumps([dict(image=f'/kaggle/input/mimic-cxr/Main2/p{i}/i{i}.jpg', conversations=talk('FINDINGS: Clear.', 'IMPRESSION: Normal.')) for i in range(1, 4)]))

def table(d):
    for i in range(3): save_jpeg(XRAY, d/f'{i}.jpg')
    (d/'metadata.csv').write_text('filename,patientid,clinical_notes,finding\n' + ''.join(f'{i}.jpg,{i},Clear.,Normal\n' for i in range(3)))

MAKE = dict(openi_csv=lambda d: make_phantom(d, n=3, size=64, workers=1), openi_xml=openi_xml, openi_tgz=openi_tgz, mimic_csv=mirror, course=course, table=table,
    mimic=lambda d: mimic_like.write_tree(d, 6e-5, say=lambda s: None), mimic_zip=lambda d: mimic_like.write_tree(d, 6e-5, reports='zip', say=lambda s: None))
KIND = {k: k for k in MAKE} | dict(openi_tgz='openi_xml', mimic_zip='mimic')

@pytest.fixture(scope='session', params=MAKE)
def made(request, tmp_path_factory):
    d = tmp_path_factory.mktemp('source')/'over'/'collection'
    MAKE[request.param](d)
    (d/'phantom.json').unlink(missing_ok=True)
    return request.param, d

@pytest.mark.parametrize('name', ['mimic-cxr-reports.zip', 'LICENSE.txt'])
def test_any_file_of_a_named_collection_stands_for_its_folder(name, tmp_path):
    from cxr_llava.sources.prepare import DataConfig, place_of
    mimic_like.write_tree(tmp_path, 6e-5, say=lambda s: None)
    (tmp_path/name).write_text('x')
    assert place_of(DataConfig(source='mimic', path=str(tmp_path/name)), tmp_path/'run') == ('mimic', tmp_path)

def test_a_text_file_that_is_called_a_table_is_read_itself(tmp_path):
    from cxr_llava.sources.prepare import DataConfig, place_of
    for name in ('mine.txt', 'other.csv'): (tmp_path/name).write_text('image,report\n')
    assert place_of(DataConfig(source='table', path=str(tmp_path/'mine.txt')), tmp_path/'run') == ('table', tmp_path/'mine.txt')

def test_what_is_taken_for_what(tmp_path):
    "Open-i beside the mirror; a report with the word conversations in it; a folder that is named like an archive"
    (tmp_path/'both').mkdir(); (tmp_path/'a/xrays.tgz').mkdir(parents=True)
    for name in ('indiana_reports.csv', 'indiana_projections.csv', 'mimic_cxr_aug_train.csv'): (tmp_path/'both'/name).write_text('uid\n')
    (tmp_path/'t.json').write_text('[{"image": "a.png", "report": "After conversations with the family."}]')
    (tmp_path/'a/xrays.tgz/a.bin').write_bytes(b'x')
    assert find_source(tmp_path/'both')[0] == 'openi_csv' and find_source(tmp_path/'t.json')[0] == 'table'
    with pytest.raises(CXRError, match='no reports known'): find_source(tmp_path/'a/xrays.tgz')

def test_records_without_an_xray_name(tmp_path):
    course(tmp_path/'c'); mirror(tmp_path/'m')
    (tmp_path/'c/val.json').write_text(json.dumps([dict(image=[], conversations=talk('FINDINGS: Clear.'))]))
    with open(tmp_path/'m/mimic_cxr_aug_train.csv', 'a') as f: f.write('''1002,"[['files/p10/s59/x.jpg']]","[['a']]","[]","[]","['Findings: Clear.']"\n''')
    for kind,folder,reason in (('course', 'c', 'no X-ray path'), ('mimic_csv', 'm', 'X-ray file missing')):
        good, bad = read(kind, tmp_path/folder)
        assert good and len(bad) == 1 and reason in bad[0]['reason']

def read(kind, path, **kw):
    bad = Rejects()
    return list(open_source(kind, path, bad, **kw)), bad

@pytest.mark.parametrize('layout', ['datasets/owner/slug', 'slug', 'notebooks/owner/slug'])
def test_attached_on_kaggle(made, layout, tmp_path, monkeypatch):
    name, d = made
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path)); monkeypatch.setenv('TMPDIR', str(tmp_path))
    (tmp_path/'input'/layout).parent.mkdir(parents=True)
    (tmp_path/'input'/layout).symlink_to(d)
    kind, path = find_source()
    assert kind == KIND[name]
    good, bad = read(kind, path)
    assert len(good) >= 2 and all(s.images and (s.findings or s.impression) for s in good)

def test_given_by_folder_parent_or_file(made, tmp_path, monkeypatch):
    name, d = made
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    want, bad = read(KIND[name], find_source(d)[1])
    assert len(want) >= 2
    tables = [p for p in d.rglob('*') if p.suffix in ('.csv', '.gz', '.xml', '.json', '.tgz') and 'truth' not in p.name]
    for place in [d.parent] + tables[:3]:
        kind, path = find_source(place)
        assert kind == KIND[name], place
        if place.suffix not in ('.xml', '.json', '.tgz'): assert [s.study_id for s in read(kind, path)[0]] == [s.study_id for s in want], place

def test_all_reads_are_equal_in_one_and_two_processes(tmp_path):
    mimic_like.write_tree(tmp_path/'m', .006, say=lambda s: None)
    a, bad_a = read('mimic', tmp_path/'m')
    b, bad_b = read('mimic', tmp_path/'m', workers=2)
    assert a == b and bad_a == bad_b and len(a) > 800

def test_course_without_reports_says_the_next_step(tmp_path, monkeypatch):
    course(tmp_path/'input/datasets/o/mimic-cxr', with_json=False)
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path))
    kind, path = find_source()
    assert kind == 'course'
    with pytest.raises(CXRError, match='3 X-rays but no JSON.*--text'): list(iter_course(path, Rejects()))
    course_json(tmp_path/'input/datasets/o/json-dataset') # the course had them in a data set of their own
    good = list(iter_course(find_source()[1], Rejects()))
    assert [(s.study_id, s.split, s.findings, s.impression, s.flags['group']) for s in good][0] == ('p1_i1', 'train', 'Clear.', 'Normal.', 'p1') and len(good) == 3

def test_same_number_in_two_main_folders(tmp_path):
    for m in ('Main', 'Main2'): save_jpeg(XRAY, tmp_path/m/'p7/i7.jpg')
    (tmp_path/'val.json').write_text(json.dumps([dict(image='/kaggle/input/mimic-cxr/Main2/p7/i7.jpg', conversations=talk('FINDINGS: Clear. IMPRESSION: Normal.'))]))
    [s] = iter_course(tmp_path, Rejects())
    assert s.images[0].parts[-3] == 'Main2' and s.split == 'val'

def test_followups_are_not_the_report(tmp_path):
    save_jpeg(XRAY, tmp_path/'Main/p1/i1.jpg')
    turns = talk('FINDINGS:\nClear.\n\nIMPRESSION:\nNormal.') + talk('No, there is no edema.', ask='Is there edema?')
    (tmp_path/'t.json').write_text(json.dumps([dict(image='Main/p1/i1.jpg', conversations=turns)]))
    [s] = iter_course(tmp_path, Rejects())
    assert (s.findings, s.impression) == ('Clear.', 'Normal.') and 'edema' not in s.report

def test_counts_are_held_against_the_published_ones(tmp_path):
    found = {}
    openi_xml(tmp_path/'x')
    list(iter_openi_xml(tmp_path/'x', Rejects(), found=found))
    assert found == dict(reports=3, reports_with_xrays=3, xrays=3)
    assert compare_counts('openi_xml', found) == '3 reports (published 3,955: 3,952 fewer), 3 reports with xrays (published 3,851: 3,848 fewer), 3 xrays (published 7,470: 7,467 fewer)'
    assert 'as published' in compare_counts('mimic', dict(patients=65379))

def test_several_collections_attached(tmp_path, monkeypatch, capsys):
    table(tmp_path/'input/datasets/a/table'); openi_xml(tmp_path/'input/datasets/z/openi')
    (tmp_path/'input/notebooks/me/run').mkdir(parents=True); (tmp_path/'input/notebooks/me/run/studies.parquet').write_text('')
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path))
    assert [k for k,_ in attached_sources()] == ['openi_xml', 'table'] and find_source()[0] == 'openi_xml'
    assert '2 collections are attached' in capsys.readouterr().out

def test_r2gen_annotation(tmp_path):
    "The JSON of R2Gen: lists by split"
    for i in range(3): save_jpeg(XRAY, tmp_path/f'images/{i}.jpg')
    one = lambda i: dict(id=f'C{i}', report=f'Heart is normal {i}.', image_path=[f'{i}.jpg'])
    (tmp_path/'annotation.json').write_text(json.dumps(dict(train=[one(0)], val=[one(1)], test=[one(2)])))
    good = list(iter_table(tmp_path/'annotation.json', Rejects(), str(tmp_path/'images')))
    assert [(s.study_id, s.split, s.findings) for s in good] == [('C0', 'train', 'Heart is normal 0.'), ('C1', 'val', 'Heart is normal 1.'), ('C2', 'test', 'Heart is normal 2.')]

# ---- MIMIC, damaged

@pytest.fixture
def mimic(tmp_path):
    mimic_like.write_tree(tmp_path/'m', 1e-4, packed=False, say=lambda s: None)
    return tmp_path/'m'

def edit(path, fn): path.write_text(fn(path.read_text()))

def test_mimic_labels_views_and_splits(mimic):
    good, bad = read('mimic', mimic)
    assert {s.split for s in good} <= {'train', 'val', 'test'} and all(s.patient_id and s.flags.get('chexpert', {1}) for s in good)
    assert {v for s in good for v in s.views} <= {'pa', 'ap', 'lateral', 'unknown'}
    (mimic/'mimic-cxr-2.0.0-chexpert.csv').unlink()
    assert all('negbio' in s.flags for s in read('mimic', mimic)[0])

def test_mimic_without_tables_and_with_reports_elsewhere(mimic):
    want = [s.study_id for s in read('mimic', mimic)[0]]
    for p in mimic.glob('*.csv'): p.unlink()
    for p in sorted(mimic.glob('files/p*/p*/s*.txt')):
        to = mimic/'mimic-cxr/2.0.0'/p.relative_to(mimic); to.parent.mkdir(parents=True, exist_ok=True); p.rename(to)
    assert sorted(s.study_id for s in read('mimic', mimic)[0]) == sorted(want)

BAD_MIMIC = dict(
    no_report=(lambda m: next(m.glob('files/p*/p*/s*.txt')).unlink(), 'report file missing'),
    empty_report=(lambda m: next(m.glob('files/p*/p*/s*.txt')).write_text(' \n'), 'no sections'),
    no_xray=(lambda m: [p.unlink() for p in next(m.glob('files/p*/p*/s*/')).iterdir()], 'X-ray file missing'),
    bad_split=(lambda m: edit(m/'mimic-cxr-2.0.0-split.csv', lambda s: s.replace(',train', ',holdout', 1)), 'unknown split'),
    bad_id=(lambda m: edit(m/'mimic-cxr-2.0.0-metadata.csv', lambda s: s + '../../etc,1,2,a,b,c,d,e,f\n'), 'not an id'),
    twice=(lambda m: edit(m/'mimic-cxr-2.0.0-metadata.csv', lambda s: s + s.splitlines()[1] + '\n'), 'duplicate id'),
    cut_line=(lambda m: edit(m/'mimic-cxr-2.0.0-metadata.csv', lambda s: s + 'abc,1'), 'fields'),
    bad_label=(lambda m: edit(m/'mimic-cxr-2.0.0-chexpert.csv', lambda s: s + '1,2' + ',x'*14 + '\n'), 'not a number'))

@pytest.mark.parametrize('name', BAD_MIMIC)
def test_broken_mimic_is_counted(name, mimic):
    n = len(read('mimic', mimic)[0])
    spoil, why = BAD_MIMIC[name]
    spoil(mimic)
    good, bad = read('mimic', mimic)
    assert n - 2 <= len(good) <= n and any(why in o['reason'] for o in bad), bad

@pytest.mark.parametrize('spoil,why', [(lambda m: edit(m/'mimic-cxr-2.0.0-metadata.csv', lambda s: s.replace('subject_id', 'patient', 1)), 'no column subject_id'),
    (lambda m: (m/'mimic-cxr-2.0.0-split.csv').write_bytes(gzip.compress((m/'mimic-cxr-2.0.0-split.csv').read_bytes())[:-20]), 'damaged gzip'),
    (lambda m: (m/'files').rename(m/'elsewhere'), 'not a MIMIC')])
def test_hopeless_mimic_is_one_sentence(spoil, why, mimic):
    spoil(mimic)
    with pytest.raises(CXRError, match=why): read('mimic', mimic)

def test_broken_mirror_rows(tmp_path):
    mirror(tmp_path)
    x = "files/p10/p1001/s51/a.jpg"
    rows = [('1', "['files/p10/p1/s1/x.jpg'", "['t']", 'not a list'), ('2', f"['{x}']", "['a', 'b']", '2 reports for 1 studies'), ('', "[]", "[]", 'no subject_id'), ('3', "['x.jpg']", "['t']", 'no study'),
            ('4', "['files/p10/p4/s4/x.jpg']", "['Findings: a.']", 'missing'), ('5', f"['{x}']", "['Findings: again.']", 'duplicate'), ('6', "['files/p10/../s5/x.jpg']", "['t']", 'no study in the path'), ('7', f"['{x.replace('51', '57')}']", "[None]", 'missing')]
    with open(tmp_path/'mimic_cxr_aug_train.csv', 'a') as f:
        for p,i,t,_ in rows: f.write(f'{p},"{i}","[]","[]","[]","{t}"\n')
    bad = Rejects()
    good = list(iter_mimic_csv(tmp_path, bad))
    assert [s.study_id for s in good] == ['s51', 's52'] and good[0].views == ['pa', 'lateral'] and len(bad) == len(rows)
    for (*_,why),o in zip(rows, bad): assert why in o['reason']

# ---- broken records of Open-i and of conversations

BAD_XML = dict(cut=XML.format(9)[:200], empty='', html='<html><body>503</body></html>', no_image=XML.format(9).replace('parentImage', 'other'), lost=XML.format(9), twice=XML.format(1),
    silent=XML.format(2).replace('CXR2"', 'CXR9"').replace('Clear XXXX 2.', '').replace('Normal.', ' '), bytes=b'\xff\xfe<\x00', bomb='<!DOCTYPE a [' + ''.join(f'<!ENTITY x{i} "{f"&x{i-1};"*10 if i else "ha"}">' for i in range(12)) + ']><a>&x11;</a>')

@pytest.mark.parametrize('name', BAD_XML)
def test_broken_xml_is_counted(name, tmp_path):
    openi_xml(tmp_path/'x')
    data = BAD_XML[name]
    (tmp_path/'x/ecgen-radiology/9.xml').write_bytes(data if isinstance(data, bytes) else data.encode())
    good, bad = read('openi_xml', tmp_path/'x')
    assert [s.study_id for s in good] == ['CXR1', 'CXR2', 'CXR3'] and len(bad) == 1 and bad[0]['where'] == '9.xml', bad

def test_cut_archive_gives_what_it_has(tmp_path):
    openi_tgz(tmp_path/'x')
    p = tmp_path/'x/NLMCXR_reports.tgz'
    with tarfile.open(p, 'w:gz') as t:
        for i in range(40):
            data = XML.format(i).encode() + os.urandom(4000).hex().encode(); m = tarfile.TarInfo(f'{i}.xml'); m.size = len(data); t.addfile(m, io.BytesIO(data))
    p.write_bytes(p.read_bytes()[:-60_000])
    bad = Rejects()
    list(iter_openi_xml(p, bad, need_images=False))
    assert 'cut off or damaged' in ' '.join(o['reason'] for o in bad)

BAD_TALK = dict(no_image=dict(conversations=talk('FINDINGS: a.')), null_image=dict(image=None, conversations=talk('FINDINGS: a.')), no_turns=dict(image='Main/p1/i1.jpg'), turns_text=dict(image='Main/p1/i1.jpg', conversations='x'),
    empty_answer=dict(image='Main/p1/i1.jpg', conversations=talk(' ')), null_answer=dict(image='Main/p1/i1.jpg', conversations=talk(None)), lost=dict(image='Main/p9/i9.jpg', conversations=talk('FINDINGS: a.')),
    up=dict(image='../Main/p1/i1.jpg', conversations=talk('FINDINGS: a.')), other_name=dict(image='cat.jpg', conversations=talk('FINDINGS: a.')), number=7, only_human=dict(image='Main/p1/i1.jpg', conversations=[{'from': 'human', 'value': 'a'}]),
    headings_only=dict(image='Main/p1/i1.jpg', conversations=talk('FINDINGS: IMPRESSION:')), twice=dict(image='Main/p2/i2.jpg', conversations=talk('FINDINGS: b.')))

@pytest.mark.parametrize('name', BAD_TALK)
def test_broken_conversation_is_counted(name, tmp_path):
    for i in (1, 2): save_jpeg(XRAY, tmp_path/f'Main/p{i}/i{i}.jpg')
    (tmp_path/'t.json').write_text(json.dumps([dict(image='/kaggle/x/Main/p2/i2.jpg', conversations=talk('FINDINGS: Clear.')), BAD_TALK[name]]))
    bad = Rejects()
    assert [s.study_id for s in iter_course(tmp_path, bad)] == ['p2_i2'] and len(bad) == 1 and bad[0]['where'] == 't.json[1]', bad

def test_list_that_is_cut_off_gives_what_stands_before(tmp_path):
    for i in range(3): save_jpeg(XRAY, tmp_path/f'{i}.jpg')
    text = json.dumps([dict(image=f'{i}.jpg', findings='Clear.') for i in range(3)])
    (tmp_path/'t.json').write_text(text[:-20])
    bad = Rejects()
    assert len(list(iter_table(tmp_path/'t.json', bad))) == 2 and len(bad) == 1 and 't.json[2]' == bad[0]['where']

# ---- the network

BODY = os.urandom(300_000)

class Bad(http.server.BaseHTTPRequestHandler):
    "Fails in the ways named in its path: /break500,ranges-ignored/file"
    seen = []
    def do_GET(self):
        how, name = self.path.strip('/').split('/')[:2]
        kind = type(self)
        kind.seen.append(self.path)
        n, asked = kind.seen.count(self.path), self.headers.get('Range')
        data = kind.files.get(name, BODY)
        if how == 'down' and n < 3 or how == 'alwaysdown': return self.send_error(500)
        if how == 'gone': return self.send_error(404)
        start = int(asked[6:-1]) if asked and how != 'ignores' else 0
        if start and how == 'elsewhere' and n < 3: start += 7
        if start > len(data) or start == len(data) and how == 'full': return self.send_error(416)
        self.send_response(206 if start else 200)
        if start: self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{"*" if how == "unmeasured" else len(data)}')
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        cut = {'breaks': 100_000, 'elsewhere': 100_000, 'unmeasured': 100_000 if n == 1 else len(data)}.get(how, len(data))
        if how == 'ignores' and n < 3: cut = 50_000*n
        self.wfile.write(data[start:start + cut])
    def log_message(self, *args): pass

@pytest.fixture
def server(tmp_path):
    kind = type('Fresh', (Bad,), dict(seen=[], files={}))
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), kind)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    s.url = f'http://127.0.0.1:{s.server_port}'
    yield s
    s.shutdown(); s.server_close()

@pytest.mark.parametrize('how', ['good', 'breaks', 'down', 'ignores', 'elsewhere', 'unmeasured'])
def test_download_over_a_bad_network(how, server, tmp_path):
    p = download(f'{server.url}/{how}/a', tmp_path/'d/a', sha=sha256(BODY), wait=.01)
    assert p.read_bytes() == BODY and [o.name for o in p.parent.iterdir()] == ['a']
    n = len(server.RequestHandlerClass.seen)
    download(f'{server.url}/{how}/a', p, sha=sha256(BODY))
    assert len(server.RequestHandlerClass.seen) == n # what is there is not fetched again

def test_download_resumes_what_an_earlier_run_left(server, tmp_path):
    (tmp_path/'a.part').write_bytes(BODY[:200_000])
    assert download(f'{server.url}/good/a', tmp_path/'a').read_bytes() == BODY
    (tmp_path/'b.part').write_bytes(BODY + b'more than there is')
    assert download(f'{server.url}/good/b', tmp_path/'b', wait=.01).read_bytes() == BODY

def test_wrong_bytes_are_thrown_away(server, tmp_path):
    with pytest.raises(CXRError, match='wrong checksum'): download(f'{server.url}/good/a', tmp_path/'a', sha='0'*64)
    (tmp_path/'a.part').write_bytes(b'\0'*100_000) # the beginning of another file
    with pytest.raises(CXRError, match='wrong checksum'): download(f'{server.url}/good/a', tmp_path/'a', sha=sha256(BODY))
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('how,word', [('gone', '404'), ('alwaysdown', 'answers 500, 3 times')])
def test_download_gives_up_in_one_sentence(how, word, server, tmp_path):
    with pytest.raises(CXRError, match=word): download(f'{server.url}/{how}/a', tmp_path/'a', wait=.01, tries=3)

def test_nobody_there(tmp_path):
    with pytest.raises(CXRError, match='no connection'): download('http://127.0.0.1:9/a', tmp_path/'a', wait=.01, tries=2)

def test_openi_is_fetched_and_read(server, tmp_path):
    openi_tgz(tmp_path/'remote')
    server.RequestHandlerClass.files = {p.name: p.read_bytes() for p in (tmp_path/'remote').iterdir()}
    d = fetch_source('openi_xml', tmp_path/'got', base=f'{server.url}/breaks', wait=.01)
    good, bad = read(*find_source(d))
    assert len(good) == 3 and not bad

def test_fetched_and_built_by_one_command(server, tmp_path, monkeypatch):
    import cxr_llava.sources.prepare as prepare
    from cxr_llava.data import main
    openi_tgz(tmp_path/'remote')
    server.RequestHandlerClass.files = {p.name: p.read_bytes() for p in (tmp_path/'remote').iterdir()}
    real = prepare.fetch_source
    monkeypatch.setattr(prepare, 'fetch_source', lambda kind, folder: real(kind, folder, base=f'{server.url}/down', wait=.01))
    main(['--fetch', '--path', str(tmp_path/'openi'), '--run', str(tmp_path/'run'), '--size', '64', '--workers', '1'])
    audit = json.loads((tmp_path/'run/audit.json').read_text())
    assert audit['source'] == 'openi_xml' and audit['found']['reports'] == 3 and audit['stats']['studies'] == 3

EVIL = dict(up='../evil', root='/tmp/evil', deep='a/../../evil', backslash='..\\evil', drive='C:/evil')

@pytest.mark.parametrize('name', EVIL)
@pytest.mark.parametrize('suffix', ['tgz', 'zip'])
def test_archive_cannot_write_outside(name, suffix, tmp_path):
    p = tmp_path/f'a.{suffix}'
    if suffix == 'zip':
        with zipfile.ZipFile(p, 'w') as z: z.writestr(EVIL[name], 'x')
    else:
        with tarfile.open(p, 'w:gz') as t: m = tarfile.TarInfo(EVIL[name]); m.size = 1; t.addfile(m, io.BytesIO(b'x'))
    with pytest.raises(CXRError, match='leads out'): unpack(p, tmp_path/'in/out')
    assert not [o for o in tmp_path.rglob('*evil*')] and not Path('/tmp/evil').exists()

def test_links_in_archives_are_refused(tmp_path):
    with tarfile.open(tmp_path/'a.tgz', 'w:gz') as t:
        m = tarfile.TarInfo('x'); m.type = tarfile.SYMTYPE; m.linkname = '/etc'; t.addfile(m)
    with pytest.raises(CXRError, match='link or device'): unpack(tmp_path/'a.tgz', tmp_path/'out')

def test_unpacking_goes_on_and_notices_damage(tmp_path):
    openi_tgz(tmp_path/'x')
    p, out = tmp_path/'x/NLMCXR_reports.tgz', tmp_path/'out'
    (out/'ecgen-radiology').mkdir(parents=True); (out/'ecgen-radiology/1.xml').write_text('half'); (out/'ecgen-radiology/2.xml.part').write_text('half')
    unpack(p, out)
    assert all((out/f'ecgen-radiology/{i}.xml').read_text() == XML.format(i) for i in (1, 2, 3))
    times = [f.stat().st_mtime_ns for f in out.rglob('*.xml')]
    unpack(p, out)
    assert times == [f.stat().st_mtime_ns for f in out.rglob('*.xml')]
    p.write_bytes(p.read_bytes()[:-30])
    with pytest.raises(CXRError, match='damaged|cut off'): unpack(p, tmp_path/'out2')

def test_kaggle_route(tmp_path, monkeypatch):
    fake = type(sys)('kagglehub')
    table(tmp_path/'k'); fake.dataset_download = lambda slug: str(tmp_path/'k')
    monkeypatch.setitem(sys.modules, 'kagglehub', fake)
    assert fetch_source('openi_csv', tmp_path/'f') == tmp_path/'k'
    def refuse(slug): raise ValueError('401 unauthorized')
    fake.dataset_download = refuse
    with pytest.raises(CXRError, match='raddar.*401.*kaggle.json'): fetch_source('openi_csv', tmp_path/'f')
    monkeypatch.setitem(sys.modules, 'kagglehub', None)
    monkeypatch.setattr('subprocess.run', lambda *a, **k: type('R', (), dict(returncode=1, stderr='403 - Forbidden', stdout=''))())
    with pytest.raises(CXRError, match='403.*kaggle.json'): fetch_source('course', tmp_path/'f')
    with pytest.raises(CXRError, match='physionet.org'): fetch_source('mimic', tmp_path/'f')

# ---- properties

@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.text('{}[]",:ab1\n\r\t;\0 \ufeff', max_size=200).map(str.encode)), st.sampled_from(['t.csv', 't.json', 't.jsonl', 't.tsv', 't']))
def test_any_bytes_are_rows_or_one_sentence(tmp_path_factory, data, name):
    p = tmp_path_factory.mktemp('rows')/name
    p.write_bytes(data)
    try: assert all(isinstance(o, dict) for _,o in read_rows(p, Rejects()))
    except CXRError as e: assert '\n' not in str(e)

@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_no_byte_is_lost(data): decoded(data)

@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_name_leaves_its_folder(name, ):
    p, why = Files(Path(__file__).parent).find(name)
    assert why or p.resolve().is_relative_to(Path(__file__).parent.resolve())

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 300), st.integers(1, 3), st.integers(1, 20))
def test_jobs_come_back_in_order(n, workers, batch): assert list(map_jobs(abs, range(-n, 0), 1 if n < 8*batch else workers, batch)) == list(range(n, 0, -1))

# ---- half a character, links, workbooks, and X-rays that are partly there

def test_half_a_character_stops_nothing(tmp_path):
    "JSON can hold half of a surrogate pair, in a text and in a file name"
    from cxr_llava.data import build_dataset, DataConfig
    from cxr_llava.core.files import read_jsonl
    course(tmp_path/'c', with_json=False)
    for i in range(1, 4): save_jpeg(phantom_xray(i, size=64), tmp_path/f'c/Main{"2" if i > 2 else ""}/p{i}/i{i}.jpg')
    (tmp_path/'c/train.json').write_text(json.dumps([dict(image=f'Main/p{i}/i{i}.jpg', conversations=talk(f'FINDINGS: Clear \ud83d {i}. IMPRESSION: Normal.')) for i in (1, 2)] +
        [dict(image='../\udce9/p3/i3.jpg', conversations=talk('FINDINGS: a.'))]))
    df = build_dataset(DataConfig(source='course', path=str(tmp_path/'c'), run=str(tmp_path/'r'), size=64, workers=1))
    assert len(df) == 2 and '\udce9' in read_jsonl(tmp_path/'r/rejects.jsonl')[0][0]['reason']

def test_folder_whose_name_is_not_utf8(tmp_path):
    from cxr_llava.data import build_dataset, DataConfig
    d = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
    try: table(d)
    except OSError: pytest.skip('this file system takes UTF-8 names only')
    assert len(build_dataset(DataConfig(source='table', path=str(d/'metadata.csv'), run=str(tmp_path/'r'), size=64, workers=1))) == 3

def test_xray_names_without_suffix_in_other_accents_and_behind_links(tmp_path):
    for n in ('plain', 'u\u0308ber'): save_jpeg(XRAY, tmp_path/f'elsewhere/{n}.jpg')
    (tmp_path/'d').mkdir(); (tmp_path/'d/xrays').symlink_to(tmp_path/'elsewhere'); (tmp_path/'elsewhere/loop').symlink_to(tmp_path/'d')
    f = Files(tmp_path/'d')
    assert [f.find(n)[0] and f.find(n)[0].name for n in ('plain', 'plain.jpg', '\u00fcber.jpg', 'xrays/\u00fcber', 'other/plain', 'plai')] == ['plain.jpg', 'plain.jpg'] + ['u\u0308ber.jpg']*2 + ['plain.jpg', None]

@pytest.mark.parametrize('spoil', [lambda p: p.mkdir(), lambda p: p.symlink_to(p.parent/'nowhere')])
def test_xml_that_cannot_be_read_is_counted(spoil, tmp_path):
    openi_xml(tmp_path/'x')
    spoil(tmp_path/'x/ecgen-radiology/9.xml')
    good, bad = read('openi_xml', tmp_path/'x')
    assert len(good) == 3 and [(o['where'], o['reason'][:14]) for o in bad] == [('9.xml', 'cannot be read')]

def test_damaged_archive_of_mimic_reports(mimic):
    n = len(read('mimic', mimic)[0])
    report = next(mimic.glob('files/p*/p*/s*.txt'))
    name, text = report.relative_to(mimic).as_posix(), report.read_text()
    report.unlink()
    z = mimic/'mimic-cxr-reports.zip'
    with zipfile.ZipFile(z, 'w', zipfile.ZIP_DEFLATED) as f: f.writestr(name, text*20)
    at = 30 + len(name)
    z.write_bytes(z.read_bytes()[:at] + b'\xff'*20 + z.read_bytes()[at+20:])
    good, bad = read('mimic', mimic)
    assert len(good) == n - 1 and any('report file missing or damaged' == o['reason'] for o in bad)
    z.write_bytes(b'PK\3\4 no archive')
    with pytest.raises(CXRError, match='mimic-cxr-reports.zip is cut off or damaged'): read('mimic', mimic)

def test_infinite_label_is_counted(mimic):
    edit(mimic/'mimic-cxr-2.0.0-chexpert.csv', lambda s: s + '1,2' + ',inf'*14 + '\n')
    assert any('not a number' in o['reason'] for o in read('mimic', mimic)[1])

def test_lost_xrays_of_a_kept_study_are_named(tmp_path):
    from cxr_llava.data import build_dataset, DataConfig
    from cxr_llava.core.files import read_json, read_jsonl
    for n in 'abcd': save_jpeg(phantom_xray(ord(n), size=64), tmp_path/f'{n}.jpg')
    (tmp_path/'b.jpg').write_bytes(b'\xff\xd8\xff')
    rows = [dict(study_id='1', image=['a.jpg', 'gone.jpg'], view=['PA', 'LATERAL']), dict(study_id='2', image=['b.jpg', 'c.jpg'], view=['PA', 'PA']), dict(study_id='3', image=['gone.jpg', 'd.jpg'], view=['PA', 'LATERAL'])]
    (tmp_path/'t.jsonl').write_text('\n'.join(json.dumps(o | dict(findings='Clear.', impression='Normal.')) for o in rows))
    df = build_dataset(DataConfig(source='table', path=str(tmp_path/'t.jsonl'), run=str(tmp_path/'r'), views='frontal', size=64, workers=1))
    lost = {s: f['xrays_left_out'] for s,f in zip(df.study_id, df['flags'])}
    assert lost['1'] == ['X-ray file missing: gone.jpg'] and len(lost['2']) == 1 and "'b.jpg'" in lost['2'][0]
    assert read_json(tmp_path/'r/audit.json')['stats']['xrays_left_out'] == 2
    assert [o['reason'] for o in read_jsonl(tmp_path/'r/rejects.jsonl')[0]] == ['no frontal X-ray (lateral only); X-ray file missing: gone.jpg']
