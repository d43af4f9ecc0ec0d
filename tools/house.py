"""How the suite reads, in numbers: `python tools/house.py` prints them beside the goals. Counted on notebooks and exported modules, text in quotes included."""
import argparse, ast, json, re
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).resolve().parents[1]

def source(cell): return ''.join(cell['source'])

def parsed(code):
    "Statements of a cell; none where it holds notebook magic"
    try: return ast.parse(code).body
    except SyntaxError: return []

def is_exported(code): return bool(re.search(r'^#\|\s*exports?\b', code, re.M))

def is_shown(code): return not re.search(r'^#\|\s*(hide|default_exp|export)', code, re.M) and not only_imports(code)

def only_imports(code):
    body = parsed(code)
    return bool(body) and all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in body)

def definitions(code): return sum(isinstance(o, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) for o in parsed(code))

def code_lines(code): return [o for o in code.splitlines() if o.strip() and not o.startswith('#|')]

def percentile(values, share): return sorted(values)[min(int(len(values)*share), len(values) - 1)]

def notebooks(root): return {p: json.loads(p.read_text('utf-8'))['cells'] for p in sorted((root/'nbs').rglob('*.ipynb'))}

def modules(root): return [p for p in sorted((root/'cxr_llava').rglob('*.py')) if p.name != '_modidx.py']

def cell_numbers(cells):
    "How long exported cells are, how much each defines, and how much is tried beside them"
    exported = [c for c in cells if is_exported(c)]
    shown = [c for c in cells if is_shown(c)]
    lines = [len(code_lines(c)) for c in exported]
    defs = [n for n in map(definitions, exported) if n]
    return {'lines per exported cell, median': median(lines), 'lines per exported cell, 90 %': percentile(lines, .9), 'lines per exported cell, longest': max(lines),
        'definitions per exported cell': mean(defs), 'exported cells with more than one, %': 100*mean(n > 1 for n in defs),
        'cells shown and run per exported cell': len(shown)/len(exported)}

def stored_names(tree):
    "Names of variables, each time one is set"
    for o in ast.walk(tree):
        if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store): yield o.id

def line_numbers(paths):
    "How dense the lines of the modules are"
    texts = [p.read_text('utf-8') for p in paths]
    lines = [l for t in texts for l in t.splitlines() if l.strip()]
    nodes = [o for t in texts for o in ast.walk(ast.parse(t))]
    names = [n for t in texts for n in stored_names(ast.parse(t))]
    ternaries = [o for o in nodes if isinstance(o, ast.IfExp)]
    chained = [o for o in ternaries if isinstance(o.body, ast.IfExp) or isinstance(o.orelse, ast.IfExp)]
    return {'exported lines': sum(len(t.splitlines()) + 1 for t in texts), 'mean length of a line': mean(map(len, lines)),
        'lines over 120 characters, %': 100*mean(len(l) > 120 for l in lines), 'lines over 160 characters': sum(len(l) > 160 for l in lines),
        'expression nodes per line': sum(isinstance(o, ast.expr) and not isinstance(getattr(o, 'ctx', None), ast.Store) for o in nodes)/len(lines), 'ternaries per 1,000 lines': 1000*len(ternaries)/len(lines),
        'chained ternaries': len(chained), 'one-letter variables, %': 100*mean(len(n) == 1 for n in names)}

def is_config(o): return isinstance(o, ast.ClassDef) and any('Config' in ast.unparse(b) for b in o.bases)

def name_numbers(paths):
    "Settings of all stages, and names without an underscore that the modules define"
    bodies = [o for p in paths for o in ast.parse(p.read_text('utf-8')).body]
    settings = [f for o in bodies if is_config(o) for f in o.body if isinstance(f, ast.AnnAssign)]
    names = [o.name for o in bodies if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and not o.name.startswith('_')]
    return {'settings': len(settings), 'public functions and classes': len(names)}

def run_begins(cells):
    "Share of a story page that lies before its first call of the stage, which says what is small in a smoke test"
    at = next((i for i,c in enumerate(cells) if c['cell_type'] == 'code' and 'SMOKE' in source(c)), len(cells))
    return at/len(cells)

def measure(root=ROOT):
    "Name of a number -> its value"
    books = notebooks(root)
    stories = {p.stem: cells for p,cells in books.items() if p.parent.name == 'nbs' and re.match(r'\d0_', p.name)}
    code = [source(c) for cells in books.values() for c in cells if c['cell_type'] == 'code']
    return {'stories': len(stories), 'chapters in wings': sum(p.parent.name != 'nbs' for p in books), 'modules': len(modules(root)),
        **name_numbers(modules(root)), **line_numbers(modules(root)), **cell_numbers(code), 'cells of a story page, most': max(map(len, stories.values())),
        'run begins on a story page, latest, %': 100*max(run_begins(c) for n,c in stories.items() if n != '40_demo')}

GOALS = {'exported lines': 13_000, 'lines per exported cell, median': 10, 'lines per exported cell, 90 %': 20, 'lines per exported cell, longest': 40,
    'definitions per exported cell': 1.2, 'exported cells with more than one, %': 15, 'mean length of a line': 50, 'lines over 120 characters, %': 2,
    'lines over 160 characters': 0, 'expression nodes per line': 4.5, 'ternaries per 1,000 lines': 30, 'chained ternaries': 0, 'one-letter variables, %': 25,
    'cells shown and run per exported cell': 2, 'cells of a story page, most': 25, 'run begins on a story page, latest, %': 34} # at most, but for the last but two

AT_LEAST = {'cells shown and run per exported cell'}

def reached(name, value): return value >= GOALS[name] if name in AT_LEAST else value <= GOALS[name]

def table(numbers):
    "Lines of a table: number, value, goal, whether it is reached"
    for name,value in numbers.items():
        goal = GOALS.get(name)
        word = '' if goal is None else 'reached' if reached(name, value) else 'not reached'
        yield f'{name:42} {value:10,.2f} {"" if goal is None else goal:>10} {word}'.rstrip()

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--root', type=Path, default=ROOT, help='the repository')
    p.add_argument('--only', help='count only notebooks and modules whose path holds this, such as `core/`')
    args = p.parse_args()
    print('\n'.join(table(measure(args.root) if not args.only else part(args.root, args.only))))

def part(root, text):
    "The same for some notebooks and their modules"
    books = {p: cells for p,cells in notebooks(root).items() if f'/{text}' in f'/{p.relative_to(root)}'}
    code = [source(c) for cells in books.values() for c in cells if c['cell_type'] == 'code']
    paths = [p for p in modules(root) if f'/{text}' in f'/{p.relative_to(root)}']
    return name_numbers(paths) | line_numbers(paths) | cell_numbers(code)

if __name__ == '__main__': main()
