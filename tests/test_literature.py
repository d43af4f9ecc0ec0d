"The page of printed numbers: its tables are checked again, and its bound is tried on every small confusion table"
import re
from itertools import product
from pathlib import Path
import numpy as np

PAGE = (Path(__file__).parents[1]/'nbs/pages/literature.md').read_text('utf-8')
HALF = .005 # half of the last printed digit

def highest_f1(accuracy): return 2*accuracy/(1 + accuracy)

def cells(row): return [o.strip() for o in row.strip('|').split('|')]

def tables():
    "Header and rows of each table of the page"
    for block in re.findall(r'(?:^\|.*\n)+', PAGE, re.M):
        head, _, *rows = block.splitlines()
        yield cells(head)[1:], {cells(r)[0]: list(map(float, cells(r)[1:])) for r in rows}

def test_bound_on_every_small_confusion_table():
    few = [t for t in product(range(13), repeat=4) if 0 < sum(t) <= 12 and sum(t[:3])]
    gaps = [highest_f1((tp + tn)/sum((tp, fp, fn, tn))) - 2*tp/(2*tp + fp + fn) for tp,fp,fn,tn in few]
    assert len(few) == 1807 and min(gaps) > -1e-12 and abs(min(gaps)) < 1e-12

def test_impossible_cells_are_those_the_page_names():
    columns, rows = next(tables())
    bad = [(row, columns[i + 3]) for row,values in rows.items() for i in range(3) if values[i + 3] - HALF > highest_f1(values[i] + HALF)]
    assert bad == [('Edema', 'F1: ours')] and 'Edema, ours: F1 .84 cannot be' in PAGE
    assert round(highest_f1(.66), 3) == .795 and round(highest_f1(.665), 3) == .799

def test_averages_are_those_the_page_names():
    wrong = []
    for columns,rows in tables():
        printed = rows.pop('Average as printed', None)
        means = np.mean(list(rows.values()), 0)
        wrong += [(c, round(float(m), 3)) for c,p,m in zip(columns, printed or [], means) if abs(p - m) > HALF + 1e-9]
    assert wrong == [('F1: ours', .668), ('F1: CXR-LLaVA', .526)]
    assert all(f'cells average {str(m)[1:]}' in PAGE for _,m in wrong)
