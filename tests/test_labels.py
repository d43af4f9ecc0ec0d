"The labeller on sentences written for it, on noise, and as a command"
import gzip, itertools, random, subprocess, sys
from pathlib import Path
import pytest
from cxr_llava.score.label_files import main
from cxr_llava.report.labels import explain_report, label_report, OBSERVATIONS
from cxr_llava.report.phrases import _VOCABULARY

CODES = dict(zip('NMCLOEKPAXFTRD', OBSERVATIONS))
LINES = [o for o in (Path(__file__).parent/'label_sentences.txt').read_text('utf-8').splitlines() if o and o[0] != '#']

@pytest.mark.parametrize('line', LINES)
def test_sentence(line):
    text, codes = line.rsplit(' | ', 1)
    labels = label_report(text.replace('\\n', '\n'))
    expected = {CODES[c[0]]: int(c[1:]) if c[1:] else None for c in codes.split()}
    assert {o: labels[o] for o in expected} == expected
    assert not {o: v for o,v in labels.items() if v and o not in expected and o != 'No Finding'}

FINDINGS = {'pleural effusion': 'Pleural Effusion', 'pneumothorax': 'Pneumothorax', 'consolidation': 'Consolidation', 'pneumonia': 'Pneumonia',
            'pulmonary edema': 'Edema', 'atelectasis': 'Atelectasis', 'rib fracture': 'Fracture', 'cardiomegaly': 'Cardiomegaly',
            'opacity': 'Lung Opacity', 'pulmonary nodule': 'Lung Lesion', 'pleural thickening': 'Pleural Other'}
FORMS = [o for o in (Path(__file__).parent/'label_forms.txt').read_text('utf-8').splitlines() if o[0] != '#']

@pytest.mark.parametrize('line', FORMS)
def test_form(line):
    form, values = line.rsplit(' | ', 1)
    values, rng = [None if v == '-' else int(v) for v in values.split()], random.Random(line)
    some = list(itertools.permutations(FINDINGS, len(values)))
    for words in some if len(some) < 60 else rng.sample(some, 60):
        text = form.replace('\\n', '\n')
        for k,w in zip('abc', words): text = text.replace(f'{{{k}}}', w).replace(f'{{{k.upper()}}}', w.capitalize())
        labels = label_report(text)
        assert [labels[FINDINGS[w]] for w in words] == values, text

def test_layout_of_a_text_does_not_matter():
    rng = random.Random(0)
    for line in LINES:
        text = line.rsplit(' | ', 1)[0].replace('\\n', '\n')
        labels, words = label_report(text), text.split(' ')
        k = rng.randrange(len(words)) if len(words) > 1 else 0
        wrapped = ' '.join(words[:k]) + ('\n' if k else '') + ' '.join(words[k:])
        for other in (text.upper(), text.lower(), wrapped, text.replace(' ', '  '), text.rstrip('.'), text.replace('\n', '\r\n')):
            assert label_report(other) == labels, other

ONE_LINE = '''FINAL REPORT EXAMINATION: CHEST (PA AND LAT) INDICATION: ___F with pneumonia TECHNIQUE: Chest PA and lateral COMPARISON: ___ FINDINGS: The heart is normal. No effusion. IMPRESSION: No edema. | C0 F0 E0
EXAMINATION: Chest radiograph INDICATION: chest tube removal, evaluate for effusion COMPARISON: None FINDINGS: Small right apical pneumothorax. | X1
INDICATION: CHF FINDINGS: no effusion IMPRESSION: pneumonia | F0 P1
CLINICAL INDICATION: Shortness of breath, CHF REPORT: Mild atelectasis. | A1
CLINICAL DATA: Pneumonia FINDINGS: Heart normal. | C0
INDICATION: Chest pain, CHF FINDINGS/IMPRESSION: No effusion. | F0
INDICATION: Chest pain, CHF. FINDINGS AND IMPRESSION: No effusion. | F0
ORDERING DIAGNOSIS: CHF FINDINGS: No effusion | F0
PROVISIONAL DIAGNOSIS: Pneumonia REPORT: No effusion | F0
REFERRAL: Pneumonia? REPORT: No effusion | F0
REASON FOR STUDY: CHF exacerbation FINDINGS: no effusion | F0'''

@pytest.mark.parametrize('line', ONE_LINE.splitlines())
def test_headers_in_a_report_that_has_become_one_line(line):
    test_sentence(line)
    labels, codes = label_report(line.rsplit(' | ', 1)[0]), line.rsplit(' | ', 1)[1].split()
    assert {o for o,v in labels.items() if v is not None} - {'No Finding'} == {CODES[c[0]] for c in codes}

def test_labels_follow_from_mentions():
    rng = random.Random(0)
    words = sorted(_VOCABULARY) + ['the', '___', '.', ',', '\n', 'INDICATION:', 'FINDINGS:', ';', '?', '(', ')', '/', '12', '3.5']
    for _ in range(2000):
        text = ' '.join(rng.choice(words) for _ in range(rng.randint(0, 40)))
        labels, mentions = label_report(text), explain_report(text)
        assert all(text[m.start:m.end] == m.text and m.value in (1, 0, -1) for m in mentions)
        for o in set(OBSERVATIONS[1:]) - {'Cardiomegaly'}:         # heart failure speaks of it without naming it
            values = {m.value for m in mentions if m.observation == o}
            assert labels[o] in values if values else labels[o] is None

@pytest.mark.parametrize('text', ['\u0130 no effusion \u212a', 'effusion '*5000, 'a'*50_000, ', '*5000 + 'effusion', '\n'*3000 + 'edema', '\n'*50_000,
                                  'INDICATION: '*2000, 'effusion or '*2000, '?)'*10_000 + 'edema', ':__'*10_000, 'ABCD '*10_000 + ':'])
def test_odd_text_is_read_in_time(text):
    label_report(text); explain_report(text)

def test_command_says_what_is_wrong(tmp_path, capsys):
    p = tmp_path/'r.jsonl'
    p.write_text('{"id": "a", "text": "Small effusion."}\n{"id": "b"\n')
    with pytest.raises(SystemExit) as e: main([str(p)])
    assert e.value.code == 2 and 'r.jsonl, line 2' in capsys.readouterr().err and not (tmp_path/'r.labels.csv').exists()
    p.write_text('{"id": "a", "text": "Small effusion."}\n')
    assert main([str(p)]) == 0 and (tmp_path/'r.labels.csv').read_text().splitlines()[1].startswith('a,')

def test_tables_of_others(tmp_path, capsys):
    "Any case, other separators, gzip; commas without quotes are a fault, and never another column"
    for name,text in {'a.csv': 'Study ID;Report\n7;"Small effusion; no edema."\n', 'b.csv.gz': 'uid,TEXT\n7,Small effusion. No edema.\n', 'c.json': '{"7": "Small effusion. No edema."}'}.items():
        (tmp_path/name).write_bytes(gzip.compress(text.encode()) if name.endswith('gz') else text.encode())
        assert main([str(tmp_path/name)]) == 0
        row = (tmp_path/f'{name[0]}.labels.csv').read_text().splitlines()[1].split(',')
        assert row[0] == '7' and row[1 + OBSERVATIONS.index('Edema')] == '0' and row[1 + OBSERVATIONS.index('Pleural Effusion')] == '1', name
    (tmp_path/'d.csv').write_text('id,report\n1,No edema, small effusion.\n2,No edema, or effusion.\n')
    with pytest.raises(SystemExit) as e: main([str(tmp_path/'d.csv')])
    assert e.value.code == 2 and '3 fields' in capsys.readouterr().err and not (tmp_path/'d.labels.csv').exists()

def test_labels_never_replace_the_reports(tmp_path, capsys):
    p = tmp_path/'t.csv'
    p.write_text('id,report\n1,No edema.\n')
    (tmp_path/'link.csv').symlink_to(p)
    for out in (p, tmp_path/'link.csv', tmp_path/'../'/tmp_path.name/'t.csv'):
        with pytest.raises(SystemExit) as e: main([str(p), '--out', str(out)])
        assert e.value.code == 2 and 'another --out' in capsys.readouterr().err and p.read_text() == 'id,report\n1,No edema.\n'

def test_scoring_tool_wants_the_right_folder(tmp_path):
    "A folder that exists but holds no archives of reports is one sentence, not a table of nothing"
    (tmp_path/'labels').mkdir()
    r = subprocess.run([sys.executable, Path(__file__).parents[1]/'tools/score_labels.py', tmp_path], capture_output=True, text=True)
    assert r.returncode == 2 and not r.stdout and r.stderr.splitlines() == [f'error: {tmp_path} holds no reports: give the folder that has openi_reports/*.tgz and labels/ in it.']

def test_a_long_phrase_that_joins_alternatives_is_shown_whole():
    m = explain_report('Atelectasis cannot be distinguished from pneumonia.')
    assert {(o.observation, o.value, o.cue, o.rule) for o in m} == {(o, -1, 'cannot be distinguished from', 'alternatives') for o in ('Atelectasis', 'Pneumonia')}
