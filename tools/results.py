"""What the measuring tools found, kept and shown: `python tools/results.py [RUN]` prints the page of results

Numbers are read, never typed. With the folder that a `cxr_run` of the default has filled, its scores become a result too."""
import json, os, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ABOUT = ('when', 'command', 'cpu', 'load_average', 'versions')

def store(
    name, # Of the file in bench/results, or a path
    what, # One sentence: what was measured
    found:dict, # Numbers, tables as lists of dicts
    **versions_of, # More libraries that matter: name -> version
)->Path:
    "Keep a result with when, on what and by which versions it was found"
    from cxr_llava.core.files import write_json
    from cxr_llava.core.run_folder import versions
    cpu = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), '') if os.path.exists('/proc/cpuinfo') else ''
    command = ' '.join(['python', f'tools/{Path(sys.argv[0]).name}', *(o if not os.path.exists(o) else Path(o).name for o in sys.argv[1:])])
    about = dict(what=what, when=time.strftime('%Y-%m-%d'), command=command, cpu=f'{cpu}, {os.cpu_count()} cores', load_average=round(os.getloadavg()[0], 1), versions=versions(device=True) | versions_of)
    path = write_json(name if isinstance(name, Path) else ROOT/f'bench/results/{name}.json', about | found)
    print(f'written: {path.name}')
    return path

def score(d, k): return f'{d[k]:.2f} [{d[k + "_lo"]:.2f}, {d[k + "_hi"]:.2f}]'

def store_run(run):
    "Keep what the default run came to"
    s, m = (json.loads((run/f'{o}.json').read_text('utf-8')) for o in ('summary', 'metrics'))
    if m['provenance']['source'] != 'phantom': sys.exit(f'error: {run} was not run on phantoms: only the default is stored.')
    rows = [dict(system=o['title'], macro_f1_of_six=score(o['clinical']['macro 6'], 'f1'), micro_f1_of_six=score(o['clinical']['micro 6'], 'f1'), bleu4=score(o['text'], 'bleu4'),
        rougeL=score(o['text'], 'rougeL'), distinct_reports=o['health']['distinct_count']) for o in m['systems'].values()]
    six = [dict(observation=k, support=o['support'], **{n: score(o, n) for n in ('sensitivity', 'specificity', 'f1')}) for k,o in m['systems']['tuned']['clinical'].items() if k in m['states'] and o['support'] and k != 'No Finding']
    return store('default_run', 'The embedded default from start to end: drawn X-rays (phantoms), the tiny model. The scores show that the pipeline works; they say nothing about patients',
        dict(headline=m['headline']['text'], gates=', '.join(f'{k} {v}' for k,v in s['gates'].items()), test_studies=m['provenance']['n'], minutes=round(s['total_seconds']/60, 1),
            peak_memory_gb=s['peak_memory_gb'], seconds=s['seconds'], systems=rows, tuned_model_by_observation=six, when=s['made'][:10]), **s['versions'])

def value(v):
    "One value as a person reads it"
    if v is None: return ''
    if isinstance(v, bool): return 'yes' if v else 'no'
    if isinstance(v, float): return f'{v:.3g}' if abs(v) < 1000 else f'{v:,.0f}'
    if isinstance(v, int): return f'{v:,}'
    if isinstance(v, list) and v and all(isinstance(o, dict) for o in v): return '; '.join(value(o) for o in v)
    if isinstance(v, list) and all(isinstance(o, (int, float)) for o in v): return f'[{", ".join(value(o) for o in v)}]' if len(v) < 7 else f'{len(v)} values'
    if isinstance(v, dict): return ', '.join(f'{k} {value(o)}' for k,o in v.items())
    return str(v).replace('|', '\\|').replace('\n', ' ')

def words(k): return str(k).replace('_', ' ')

def table(rows):
    "Dicts with the same keys as a table"
    keys = list(dict.fromkeys(k for r in rows for k in r))
    lines = ['| ' + ' | '.join(words(k) for k in keys) + ' |', '|' + '---|'*len(keys)]
    return '\n'.join(lines + ['| ' + ' | '.join(value(r.get(k)) for k in keys) + ' |' for r in rows])

def pairs(d): return '| | |\n|---|---|\n' + '\n'.join(f'| {words(k)} | {value(v)} |' for k,v in d.items())

def is_rows(v): return isinstance(v, list) and v and all(isinstance(o, dict) for o in v)

def is_grid(v): return isinstance(v, dict) and len(v) > 1 and all(isinstance(o, dict) for o in v.values())

def section(d, level=3):
    "The parts of a result file, tables where rows are alike"
    plain = {k: v for k,v in d.items() if k not in ABOUT and k not in ('title', 'what', 'note') and not is_rows(v) and not isinstance(v, dict)}
    res = [value(d[k]) for k in ('what', 'note') if d.get(k)] + ([pairs(plain)] if plain else [])
    for k,v in d.items():
        if k in ABOUT: continue
        if is_rows(v): res.append(f'{"#"*level} {words(k)}\n\n{table(v)}')
        elif is_grid(v): res.append(f'{"#"*level} {words(k)}\n\n{table([{"": words(n), **o} for n,o in v.items()])}')
        elif isinstance(v, dict): res.append(f'{"#"*level} {words(k)}\n\n{pairs(v)}')
    return res

def results_page(root=ROOT):
    "Markdown of all stored results"
    res = []
    for p in [*sorted((root/'bench/results').glob('*.json'), key=lambda p: (p.stem != 'default_run', p.stem)), *root.glob('cxr_llava/labeller_scores.json')]:
        d = json.loads(p.read_text('utf-8'))
        d = dict(rows=d) if isinstance(d, list) else d
        about = {k: d[k] for k in ABOUT if d.get(k)}
        res += [f'## {d.get("title") or words(p.stem).capitalize()}', *section(d), f'*From `{p.relative_to(root)}`' + (': ' + '; '.join(f'{words(k)} {value(v)}' for k,v in about.items()) if about else '') + '.*']
    return '\n\n'.join(res) or 'No result file is stored yet.'

if __name__ == '__main__':
    for o in sys.argv[1:]: store_run(Path(o))
    print(results_page())
