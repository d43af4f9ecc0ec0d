"""Tables of the stored result files, for the results page: `python tools/results.py` prints them. Numbers are read, never typed."""
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ABOUT = ('device', 'machine', 'cpu', 'gpu', 'threads', 'versions', 'when', 'load_average', 'commit', 'seed')

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
    for p in sorted((root/'bench/results').glob('*.json')):
        d = json.loads(p.read_text('utf-8'))
        d = dict(rows=d) if isinstance(d, list) else d
        about = {k: d[k] for k in ABOUT if d.get(k)}
        res += [f'## {d.get("title") or words(p.stem)}', *section(d), '*From `bench/results/' + p.name + '`' + (': ' + '; '.join(f'{words(k)} {value(v)}' for k,v in about.items()) if about else '') + '.*']
    return '\n\n'.join(res) or 'No result file is stored yet.'

if __name__ == '__main__': print(results_page())
