"""Score the labeller on annotated Open-i reports: python tools/score_labels.py FOLDER [--errors LABEL]

FOLDER holds `openi_reports/*.tgz` (report XML files) and `labels/`: `*_gold.csv` (positives coded by people), any CSV with an
`id` and the fourteen observations (1, 0, -1 or empty), `chexpert_sample_*.csv`, and `f1chexbert_probe_sentences.json`. What is
missing is skipped. The scores (no text) go to `cxr_llava/labeller_scores.json`, which `report/03_labels` and the page of results show.
"""
import argparse, csv, io, json, tarfile, time
import xml.etree.ElementTree as ET
from pathlib import Path
from cxr_llava.report.labels import label_report, LABELLER, OBSERVATIONS, TARGETS
from results import ROOT, store

GOLD = {'Pleural Effusion': 'Effusion'}

def read_reports(folder):
    "Report id -> {section: text} of every XML file in the archives"
    out = {}
    for p in sorted(Path(folder).glob('openi_reports/*.tgz')):
        with tarfile.open(p) as tar:
            for m in tar:
                if not m.name.endswith('.xml'): continue
                t = ET.parse(io.BytesIO(tar.extractfile(m).read())).getroot()
                out[t.find('uId').get('id')] = {a.get('Label'): (a.text or '').strip() for a in t.iter('AbstractText')}
    return out

def rows(p, key):
    with open(p, newline='', encoding='utf-8') as f: return {r[key]: r for r in csv.DictReader(f)}

def f1(tp, fp, fn): return 2*tp/(2*tp+fp+fn) if tp+fp+fn else float('nan')

def score_gold(gold, labels, positive):
    "Counts and F1 per target, then micro and macro"
    total, per = [0, 0, 0], {}
    for t in TARGETS:
        c = [0, 0, 0]
        for k,r in gold.items():
            if k not in labels: continue
            y, p = r[GOLD.get(t, t)]=='1', labels[k][t] in positive
            if y or p: c[0 if y and p else 1 if p else 2] += 1
        per[t] = (f1(*c), *c); total = [a+b for a,b in zip(total, c)]
    return per, f1(*total), sum(v[0] for v in per.values())/len(per)

def agreement(ref, labels, obs):
    "Share of cells with the same of four states"
    val = {'': None, '1': 1, '0': 0, '-1': -1}
    cells = [(labels[k][o], val[r[o].strip().replace('.0', '')]) for k,r in ref.items() if k in labels for o in obs if o in r]
    return sum(a==b for a,b in cells)/max(len(cells), 1), len(cells)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('folder'); p.add_argument('--errors', help='show the disagreements with the gold on this target')
    p.add_argument('--sections', default='findings,impression', help='what is read, for the gold and for the agreement (default %(default)s)')
    a = p.parse_args()
    result = dict(labeller=LABELLER, sections=a.sections, gold={}, agreement={})
    reports, lab = read_reports(a.folder), Path(a.folder)/'labels'
    if not reports: p.exit(2, f'error: {a.folder} holds no reports: give the folder that has openi_reports/*.tgz and labels/ in it.\n')
    full = {k: ' '.join(s.get(x) or '' for x in a.sections.upper().split(',')).strip() for k,s in reports.items()}
    full = {k: t for k,t in full.items() if t}
    start = time.process_time(); labels = {k: label_report(t) for k,t in full.items()}; took = time.process_time()-start
    print(f'{LABELLER}: {len(full)} reports with text, {len(full)/took:,.0f} per processor second, nothing read before')
    for g in sorted(lab.glob('*_gold.csv')):
        gold = {k: r for k,r in rows(g, 'filename').items() if k in full}
        for name,pos in (('negative', {1}), ('positive', {1, -1})):
            per, micro, macro = score_gold(gold, labels, pos)
            result['gold'][name] = dict(file=g.name, n=len(gold), micro_f1=micro, macro_f1=macro,
                                        targets={t: dict(zip(('f1', 'tp', 'fp', 'fn'), v)) for t,v in per.items()})
            print(f'\n{g.name}, n={len(gold)}, uncertain = {name}: micro F1 {micro:.3f}, macro F1 {macro:.3f}')
            for t,(f,tp,fp,fn) in per.items(): print(f'  {t:18s} F1 {f:.3f}   tp {tp:3d}  fp {fp:3d}  fn {fn:3d}')
        if a.errors:
            for k,r in gold.items():
                y, v = r[GOLD.get(a.errors, a.errors)]=='1', labels[k][a.errors]
                if y!=(v==1): print(f'{k} gold {int(y)} label {v}: {full[k]}')
    for c in sorted(lab.glob('*.csv')):
        ref = rows(c, 'id') if 'id' in c.open(encoding='utf-8').readline().split(',') else {}
        if not ref: continue
        six, n6 = agreement(ref, labels, TARGETS); most, n13 = agreement(ref, labels, OBSERVATIONS[1:]); nf, n1 = agreement(ref, labels, OBSERVATIONS[:1])
        result['agreement'][c.name] = dict(n=len([k for k in ref if k in labels]), six=six, thirteen=most, no_finding=nf)
        print(f'\n{c.name}, {a.sections}: four-state agreement six {six:.3f} (n={n6}), thirteen {most:.3f} (n={n13}), No Finding {nf:.3f} (n={n1})')
    sample = lab/'chexpert_sample_labels.csv'
    if sample.exists():
        ref = rows(sample, 'Reports')
        ok, n = agreement(ref, {k: label_report(k) for k in ref}, OBSERVATIONS); result['chexpert_sample'] = [round(ok*n), n]; print(f'\nCheXpert sample: {ok*n:.0f}/{n}')
    probes = lab/'f1chexbert_probe_sentences.json'
    if probes.exists():
        ps = json.loads(probes.read_text(encoding='utf-8')); result['probes'] = [sum(label_report(s)[o]==1 for s,o in ps), len(ps)]; print(f'probes: {sum(label_report(s)[o]==1 for s,o in ps)}/{len(ps)}')
    store(ROOT/'cxr_llava/labeller_scores.json', 'The labeller against public human annotations of Open-i reports (half of them seen while the rules were written) and against files of other labellers', result)

if __name__=='__main__': main()
