"""How exactly sections come back from real reports typed in nine ways: `python tools/score_sections.py openi_reports.tgz`

Every Open-i report that has findings and an impression is written anew in each layout, parsed, and both sections compared
word by word with the originals (runs of spaces and line breaks count as one space). `--all` adds layouts beyond the nine,
`--show N` prints the first N that differ.
"""
import argparse, io, sys, tarfile, textwrap, time
import xml.etree.ElementTree as ET
from results import store

def reports(path):
    "The four sections of every report of an archive of Open-i XML files"
    with tarfile.open(path) as tar:
        for m in sorted(tar, key=lambda m: m.name):
            if not m.name.endswith('.xml'): continue
            root = ET.parse(io.BytesIO(tar.extractfile(m).read())).getroot()
            yield m.name, {e.get('Label').lower(): ' '.join(''.join(e.itertext()).split()) for e in root.iter('AbstractText')}

def wrap(s, n=78): return '\n'.join(' ' + o for o in textwrap.wrap(s, n, break_long_words=False, break_on_hyphens=False))

def mimic(r):
    head = f'                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  {r["indication"]}\n \n'
    return head + f' TECHNIQUE:  Chest PA and lateral\n \n COMPARISON:  {r["comparison"]}\n \n FINDINGS: \n \n{wrap(r["findings"])}\n \n IMPRESSION: \n \n{wrap(r["impression"])}\n'

def mimic_old(r):
    return f'                                 FINAL REPORT\n HISTORY:  {r["indication"]}\n\n FINDINGS:  {wrap(r["findings"]).lstrip()}\n\n IMPRESSION:  {wrap(r["impression"]).lstrip()}'

def wet_read(r):
    return f'                        WET READ: ___ ___ ___ 3:14 PM\n No change.\n WET READ VERSION #1\n______________________________________________________________________________\n{mimic(r)}'

LAYOUTS = {
    'MIMIC-like': mimic,
    'one line': lambda r: f'INDICATION: {r["indication"]} COMPARISON: {r["comparison"]} FINDINGS: {r["findings"]} IMPRESSION: {r["impression"]}',
    'no space': lambda r: f'FINDINGS:{r["findings"]}\nIMPRESSION:{r["impression"]}',
    'Markdown bold': lambda r: f'**Findings:** {r["findings"]}\n\n**Impression:** {r["impression"]}',
    '## headings': lambda r: f'## Findings\n\n{r["findings"]}\n\n## Impression\n\n{r["impression"]}\n',
    'lower case': lambda r: f'findings: {r["findings"]}\nimpression: {r["impression"]}',
    'CONCLUSION': lambda r: f'FINDINGS: {r["findings"]}\n\nCONCLUSION: {r["impression"]}',
    'impression first': lambda r: f'IMPRESSION: {r["impression"]}\n\nFINDINGS: {r["findings"]}',
    'no headings': lambda r: f'{r["findings"]}\n\n{r["impression"]}'}

def small(f): return lambda r: f(r).replace('FINDINGS', 'findings').replace('IMPRESSION', 'impression').replace('INDICATION', 'indication').replace('COMPARISON', 'comparison')
def title(f): return lambda r: f(r).replace('FINDINGS', 'Findings').replace('IMPRESSION', 'Impression').replace('INDICATION', 'Indication').replace('COMPARISON', 'Comparison')
MORE = {
    'MIMIC-like, history': mimic_old, 'MIMIC-like, wet read': wet_read,
    'MIMIC-like, CRLF': lambda r: mimic(r).replace('\n', '\r\n'), 'MIMIC-like, addendum': lambda r: mimic(r) + '\n\n ADDENDUM:  Discussed by phone.\n',
    'MIMIC-like, title case': title(mimic), 'MIMIC-like, lower case': small(mimic),
    'one line, title case': title(LAYOUTS['one line']), 'one line, lower case': small(LAYOUTS['one line']),
    'one line, no space': lambda r: f'FINDINGS:{r["findings"]} IMPRESSION:{r["impression"]}', 'one line, glued': lambda r: f'FINDINGS:{r["findings"]}IMPRESSION:{r["impression"]}',
    'no space, lower case': small(LAYOUTS['no space']), 'no space, one line, title': title(lambda r: f'FINDINGS:{r["findings"]} IMPRESSION:{r["impression"]}'),
    'bold, colon outside': lambda r: f'**Findings**: {r["findings"]}\n\n**Impression**: {r["impression"]}', 'bold, no colon': lambda r: f'**FINDINGS**\n{r["findings"]}\n\n**IMPRESSION**\n{r["impression"]}',
    'bold, one line': lambda r: f'**FINDINGS:** {r["findings"]} **IMPRESSION:** {r["impression"]}', 'bold, single newline': lambda r: f'**Findings:**\n{r["findings"]}\n**Impression:**\n{r["impression"]}',
    '# colon': lambda r: f'# Findings:\n{r["findings"]}\n# Impression:\n{r["impression"]}', '### bold': lambda r: f'### **Findings**\n\n{r["findings"]}\n\n### **Impression**\n\n{r["impression"]}',
    '## capitals': lambda r: f'## FINDINGS\n{r["findings"]}\n\n## IMPRESSION\n{r["impression"]}', '##Findings': lambda r: f'##Findings\n{r["findings"]}\n##Impression\n{r["impression"]}',
    'bullets': lambda r: f'- Findings: {r["findings"]}\n- Impression: {r["impression"]}', 'numbered': lambda r: f'1. Findings: {r["findings"]}\n2. Impression: {r["impression"]}',
    'alone': lambda r: f'FINDINGS\n{r["findings"]}\n\nIMPRESSION\n{r["impression"]}', 'alone, title': lambda r: f'Findings\n{r["findings"]}\n\nImpression\n{r["impression"]}',
    'dash': lambda r: f'FINDINGS - {r["findings"]}\nIMPRESSION - {r["impression"]}', 'singular': lambda r: f'Finding: {r["findings"]}\nImpressions: {r["impression"]}',
    'Conclusion, lower': lambda r: f'findings: {r["findings"]}\nconclusion: {r["impression"]}', 'SUMMARY': lambda r: f'FINDINGS: {r["findings"]}\n\nSUMMARY: {r["impression"]}',
    'IMPRESSION first, lower': small(LAYOUTS['impression first']), 'impression first, one line': lambda r: f'IMPRESSION: {r["impression"]} FINDINGS: {r["findings"]}',
    'our own': lambda r: f'FINDINGS:\n{r["findings"]}\n\nIMPRESSION:\n{r["impression"]}', 'HTML bold': lambda r: f'<b>FINDINGS:</b> {r["findings"]}<br><b>IMPRESSION:</b> {r["impression"]}',
    'underlined': lambda r: f'FINDINGS\n--------\n{r["findings"]}\n\nIMPRESSION\n----------\n{r["impression"]}', 'four sections, bold': lambda r: f'**Indication:** {r["indication"]}\n\n**Comparison:** {r["comparison"]}\n\n**Findings:** {r["findings"]}\n\n**Impression:** {r["impression"]}',
    'four sections, ##': lambda r: f'## Indication\n{r["indication"]}\n\n## Comparison\n{r["comparison"]}\n\n## Findings\n{r["findings"]}\n\n## Impression\n{r["impression"]}',
    'four sections, lower': lambda r: f'indication: {r["indication"]}\ncomparison: {r["comparison"]}\nfindings: {r["findings"]}\nimpression: {r["impression"]}',
    'all lower case text': lambda r: f'findings: {r["findings"]} impression: {r["impression"]}'.lower(), 'ALL CAPITALS': lambda r: f'FINDINGS: {r["findings"]}\nIMPRESSION: {r["impression"]}'.upper(),
    'one line, CONCLUSION': lambda r: f'FINDINGS: {r["findings"]} CONCLUSION: {r["impression"]}', 'IMPRESSION AND RECOMMENDATION': lambda r: f'FINDINGS: {r["findings"]}\nIMPRESSION AND RECOMMENDATION: {r["impression"]}',
    'Report prose before': lambda r: f'Chest, 2 views, XXXX.\n\nFINDINGS: {r["findings"]}\n\nIMPRESSION: {r["impression"]}\n\nElectronically signed by XXXX'}

def words(s): return ' '.join((s or '').split())

def came_back(name, r, parse):
    "Whether both sections are as they were; without headings, whether nothing was lost"
    text = LAYOUTS.get(name, MORE.get(name))(r)
    s = parse(text)
    want = (r['findings'], r['impression'])
    if name == 'no headings': return words(s.findings) == words(text) and s.impression is None, s
    if name == 'all lower case text': want = tuple(o.lower() for o in want)
    if name == 'ALL CAPITALS': want = tuple(o.upper() for o in want)
    return (words(s.findings), words(s.impression)) == tuple(map(words, want)), s

def main():
    from cxr_llava.report.sections import parse_sections
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('archive', help='.tgz of Open-i XML reports')
    p.add_argument('--all', action='store_true', help='also layouts beyond the nine')
    p.add_argument('--show', type=int, default=0, help='print that many that differ, per layout')
    args = p.parse_args()
    both = [(n, r) for n,r in reports(args.archive) if r.get('findings') and r.get('impression')]
    print(f'{len(both)} reports with both sections')
    rows, start = [], time.process_time()
    for name in (LAYOUTS | MORE if args.all else LAYOUTS):
        res = [(n, r, *came_back(name, r, parse_sections)) for n,r in both]
        good = sum(o[2] for o in res)
        rows.append(dict(layout=name, reports=len(res), exact=good))
        print(f'{name:32} {good:5} {100*good/len(res):6.2f} %', flush=True)
        for n,r,_,s in [o for o in res if not o[2]][:args.show]: print(f'    {n}\n    want {r["findings"]!r} | {r["impression"]!r}\n    got  {s.as_dict()}')
    took, low = time.process_time() - start, min(o['exact']/o['reports'] for o in rows)
    print(f'lowest {100*low:.2f} %; {took:.1f} s of CPU')
    store('data_sections', 'Open-i reports with findings and impression typed anew in several layouts: both sections back exactly', dict(cpu_s=round(took, 1), layouts=rows))
    sys.exit(low < .99)

if __name__ == '__main__': main()
