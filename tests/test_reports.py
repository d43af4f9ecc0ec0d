"Sections of reports typed in any way: exact on known layouts, nothing lost on odd ones, quick on all"
import json, random, re, sys, time
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cxr_llava.core.files import CXRError
from cxr_llava.report.sections import (
    clean_text, deid_count, drop_priors, join_sections, parse_sections, prior_references, Sections,
    sentences)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tools'))
import score_sections as score

def phantom_reports(n):
    from cxr_llava.xray.phantom import sample_truth, write_report
    rng = np.random.default_rng(0)
    for _ in range(n):
        r = write_report(sample_truth(rng), rng)
        yield {k: ' '.join((r.get(k) or 'None').split()) for k in ('findings', 'impression', 'indication', 'comparison')}

REPORTS = list(phantom_reports(150))

@pytest.mark.parametrize('name', list(score.LAYOUTS | score.MORE))
def test_layouts_of_one_report(name):
    bad = [r for r in REPORTS if not score.came_back(name, r, parse_sections)[0]]
    assert not bad, bad[0]

F, I = 'The lungs are clear. There is no effusion.', 'No acute process.'
TYPED = dict(
    mimic=f'FINAL REPORT\nEXAMINATION: CHEST (PORTABLE AP)\n\nINDICATION: ___ year old man with cough // eval for pneumonia\n\nTECHNIQUE: Portable AP\n\nCOMPARISON: ___\n\nFINDINGS:\n\n{F}\n\nIMPRESSION:\n\n{I}',
    reason=f'FINAL REPORT\n REASON FOR EXAM:  Fever.\n\n FINDINGS: {F}\n\n CONCLUSION: {I}', opinion=f'EXAM: CHEST X-RAY\nCLINICAL HISTORY: Cough.\nFINDINGS: {F}\nOPINION: {I}',
    report=f'CLINICAL INFORMATION: Cough.\n\nREPORT: {F}\n\nIMPRESSION: {I}', star=f'*FINDINGS*: {F}\n*IMPRESSION*: {I}', under=f'__FINDINGS:__ {F}\n__IMPRESSION:__ {I}',
    brackets=f'[FINDINGS] {F}\n[IMPRESSION] {I}', bracket_colon=f'[FINDINGS]: {F}\n[IMPRESSION]: {I}', html=f'<p>FINDINGS: {F}</p><p>IMPRESSION: {I}</p>', tags=f'<findings>{F}</findings><impression>{I}</impression>',
    colon_dash=f'FINDINGS:- {F}\nIMPRESSION:- {I}', semicolon=f'FINDINGS;\n{F}\nIMPRESSION;\n{I}', stop=f'FINDINGS.\n{F}\nIMPRESSION.\n{I}', equals=f'FINDINGS =\n{F}\nIMPRESSION =\n{I}',
    space_colon=f'FINDINGS : {F}\nIMPRESSION : {I}', wide_colon=f'Findings： {F}\nImpression： {I}', json=json.dumps(dict(findings=F, impression=I)), fenced='```json\n' + json.dumps(dict(Findings=F, Impression=I)) + '\n```',
    tab=f'FINDINGS\t{F}\nIMPRESSION\t{I}', bare=f'FINDINGS {F} IMPRESSION {I}', twice=f'FINDINGS:\n{F}\n\nFINDINGS:\n{F}\n\nIMPRESSION:\n{I}', signed=f'FINDINGS: {F}\nIMPRESSION: {I}\n\nElectronically signed by Dr. X on 1/1',
    dictated=f'FINDINGS: {F}\nIMPRESSION: {I}\n\nDictated by: Dr. X', final=f'FINDINGS: {F}\nIMPRESSION: {I}\n\n***Final***', radiologist=f'FINDINGS: {F}\nIMPRESSION: {I}\n\nRadiologist: Dr. Who',
    notified=f'FINDINGS: {F}\nIMPRESSION: {I}\nNOTIFICATION: Dr X was called.', advised=f'FINDINGS: {F}\nIMPRESSION: {I}\nRECOMMENDATION(S): Follow up.', titled=f'PA AND LATERAL CHEST RADIOGRAPHS\n\nINDICATION: Cough.\n\nFINDINGS: {F}\n\nIMPRESSION: {I}',
    quoted=f'INDICATION: Cough; evaluate for findings: pneumonia.\nFINDINGS: {F}\nIMPRESSION: {I}', addendum_first=f'ADDENDUM  Findings were discussed.\n______\n                FINAL REPORT\n FINDINGS: {F}\n\n IMPRESSION: {I}',
    addendum_last=f'    FINAL REPORT\n FINDINGS: {F}\n\n IMPRESSION: {I}\n______\n      ADDENDUM\n\nFINDINGS: Missed nodule.', wet_read=f'WET READ: ___ 5 PM\n No effusion.\n______\n FINAL REPORT\n FINDINGS: {F}\n\n IMPRESSION: {I}',
    pfi=f'PROVISIONAL FINDINGS IMPRESSION (PFI):  Clear.\n______\n FINAL REPORT\n FINDINGS: {F}\n IMPRESSION: {I}', unheaded=f'CHEST TWO VIEWS.\n\n{F}\n\nIMPRESSION: {I}', after_comparison=f'COMPARISON: None.\n\n{F}\n\nIMPRESSION: {I}',
    number=f'1. FINDINGS: {F}\n2. IMPRESSION: {I}', slash=f'FINDINGS: {F}\nIMPRESSION/PLAN: {I}', plural=f'FINDING(S): {F}\nIMPRESSION(S): {I}', paren=f'FINDINGS (PA and lateral): {F}\nIMPRESSION: {I}',
    chest=f'CHEST FINDINGS: {F}\nCHEST IMPRESSION: {I}', typo=f'FIDINGS: {F}\nIMPRESSON: {I}', typo2=f'Findngs: {F}\nImpresion: {I}', radiologic=f'RADIOLOGIC FINDINGS: {F}\nRADIOLOGIC IMPRESSION: {I}', capital=f'Comparison: none available for Findings: {F} Impression: {I}')

@pytest.mark.parametrize('name', TYPED)
def test_typed_by_hand(name):
    s = parse_sections(TYPED[name])
    assert (s.findings, s.impression) == (F, I)

def test_other_sections():
    s = parse_sections(TYPED['mimic'])
    assert (s.indication, s.comparison, s.technique, s.examination) == ('___ year old man with cough // eval for pneumonia', '___', 'Portable AP', 'CHEST (PORTABLE AP)')
    s = parse_sections('INDICATION: cough\nHISTORY: smoker\nFINDINGS: Clear.\nIMPRESSION: Normal.\nNOTIFICATION: Called.')
    assert (s.indication, s.history, s.notification) == ('cough', 'smoker', 'Called.')
    assert parse_sections(TYPED['wet_read']).wet_read == '___ 5 PM No effusion.'
    assert 'Missed nodule' in parse_sections(TYPED['addendum_last']).addendum

@pytest.mark.parametrize('text,f,i', [
    ('FINDINGS: There are no findings. Impression on the esophagus by the aorta.\nIMPRESSION: Normal.', 'There are no findings. Impression on the esophagus by the aorta.', 'Normal.'),
    ('FINDINGS: Lungs: clear. Heart: normal at 3:14 PM.\nIMPRESSION: Normal.', 'Lungs: clear. Heart: normal at 3:14 PM.', 'Normal.'),
    ('FINDINGS:\nLINES/TUBES: None.\nLUNGS: Clear.\nCHEST: Normal.\nIMPRESSION: Normal.', 'LINES/TUBES: None. LUNGS: Clear. CHEST: Normal.', 'Normal.'),
    ('FINDINGS CONSISTENT WITH EDEMA.', 'FINDINGS CONSISTENT WITH EDEMA.', None), ('FINDINGS AND IMPRESSION: Clear.', 'Clear.', None), ('IMPRESSION AND FINDINGS: Clear.', 'Clear.', None),
    ('FINDINGS:\nIMPRESSION: Normal.', '', 'Normal.'), ('FINDINGS: Clear.\nIMPRESSION:', 'Clear.', ''), ('FINDINGS: Clear.', 'Clear.', None), ('IMPRESSION: Normal.', None, 'Normal.'),
    ('Lungs are clear.', 'Lungs are clear.', None), ('', None, None), (' \n\n', None, None), (None, None, None), (float('nan'), None, None),
    ('AP CHEST, 8:58 A.M., ___\n\nHISTORY:  Intubated.\n\nIMPRESSION:  AP chest compared to ___:\n\nClear.', None, 'AP chest compared to ___: Clear.'),
    ('IMPRESSION:\n1. Normal.\n2. Stable.', None, '1. Normal.\n2. Stable.'), ('Compression: none. Depression: none.', 'Compression: none. Depression: none.', None)])
def test_what_is_and_is_not_a_heading(text, f, i):
    s = parse_sections(text)
    assert (s.findings, s.impression) == (f, i)

def test_not_text():
    for bad in (3, b'FINDINGS: x', ['FINDINGS: x']):
        with pytest.raises(CXRError, match='must be text'): parse_sections(bad)

line = st.text(st.characters(codec='utf-8', exclude_categories=('Cs',)), max_size=60) | st.sampled_from(['FINDINGS:', 'impression: x', '**Findings**', '## Impression', '1. Edema.', '___', 'ADDENDUM', 'WET READ: x', '<br>', '{"findings": "x"}', ':', '-', '&amp;'])
report = st.lists(line, max_size=12).map('\n'.join)

@settings(max_examples=150, deadline=None)
@given(report)
def test_any_text_parses_and_cleaning_settles(text):
    s = parse_sections(text)
    for v in s.as_dict().values(): assert isinstance(v, str) and clean_text(v) == v
    assert clean_text(clean_text(text)) == clean_text(text)

@settings(max_examples=150, deadline=None)
@given(report | st.none(), report | st.none())
def test_what_is_joined_comes_back(f, i):
    if f is None and i is None: return
    s = parse_sections(join_sections(f, i))
    assert (s.findings, s.impression) == (clean_text(f), clean_text(i))

words = st.lists(st.sampled_from('the heart is normal no effusion lungs clear edema mild XXXX ___ 3:14 pm. Dr. left-sided T-spine'.split()), min_size=3, max_size=30).map(lambda w: ' '.join(w).capitalize() + '.')

@settings(max_examples=150, deadline=None)
@given(words, words, st.sampled_from([n for n in score.LAYOUTS if n != 'no headings']))
def test_layouts_of_any_prose(f, i, name):
    assert score.came_back(name, dict(findings=f, impression=i, indication='Cough.', comparison='None.'), parse_sections)[0]

@settings(max_examples=100, deadline=None)
@given(report)
def test_no_word_is_lost(text):
    if any(o in text for o in '<{*_#[('): return # marks are not words
    got = ' '.join(parse_sections(text).as_dict().values())
    plain = clean_text(text)
    for w in re.findall(r'[a-z]{3,}', plain): # headings are in the other case or named below
        assert w in got or w in 'findings impression final report findingsimpression'

def test_priors():
    yes = ('The effusion has increased since the prior study.', 'Stable cardiomegaly.', 'Compared to the previous radiograph, no change.', 'No longer seen.', 'Interval removal of the line.', 'The edema is improved.')
    no = ('Prior sternotomy.', 'Status post previous surgery.', 'The heart is normal.', 'Old rib fracture.', 'Prior granulomatous disease.', 'There is a new-looking device.')
    assert [o for o in yes if not prior_references(o)] == [] and [o for o in no if prior_references(o)] == []
    assert drop_priors('1. Stable edema.\n2. No effusion.\n3. Clear apex.') == '1. No effusion.\n2. Clear apex.'
    assert drop_priors(None) is None and drop_priors('') == ''
    assert sentences('1. Called Dr. Who. Clear.') == ['1. Called Dr. Who.', 'Clear.']
    assert deid_count('XXXX-year-old seen ___, XXXX.') == 3

def test_long_and_hostile_texts_are_quick():
    start = time.process_time()
    for t in ('x'*100_000, ': '*50_000, 'FINDINGS: '*10_000, ('the lungs are clear ' * 5000), '*'*50_000, '<'*50_000, '_'*50_000, 'a: '*20_000, '&amp;'*20_000, '('*30_000, '\n'*50_000, '{'*50_000, '- '*30_000, 'FINDINGS' * 8000):
        parse_sections(t)
    assert time.process_time() - start < 20

def test_speed():
    texts = [score.mimic(r) for r in REPORTS]*2
    start = time.process_time()
    for t in texts: parse_sections(t)
    assert len(texts)/(time.process_time() - start) > 1000 # about 7,000 on one idle core
