"""How long and how much memory the text side of the data stage takes at full size: `python tools/bench_data.py TREE...`

For each tree (made by tools/mimic_like.py) it runs `cxr_data` without preparing X-rays (manifest, sections, split, audit by ids and text) and `cxr_prompts`
(conversations), each as its own process, and prints wall time, CPU time and the peak memory of the whole process tree."""
import argparse, json, os, resource, subprocess, sys, tempfile, threading, time
from pathlib import Path
from results import store

def tree_memory(pid):
    "Proportional memory of a process and all below it, MB"
    todo, total = [pid], 0
    while todo:
        p = todo.pop()
        try:
            total += next(int(l.split()[1]) for l in open(f'/proc/{p}/smaps_rollup') if l.startswith('Pss:'))/1024
            for t in os.listdir(f'/proc/{p}/task'): todo += map(int, open(f'/proc/{p}/task/{t}/children').read().split())
        except (OSError, StopIteration, ValueError): pass # gone meanwhile
    return total

def measured(cmd):
    "(wall seconds, CPU seconds, peak MB, output) of a command and its children"
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), [0]
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    def watch():
        while p.poll() is None: peak[0] = max(peak[0], tree_memory(p.pid)); time.sleep(.25)
    t = threading.Thread(target=watch, daemon=True)
    t.start()
    out = p.communicate()[0]
    wall, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode: sys.exit(f'{" ".join(cmd)} failed:\n{out}')
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0], out

def bench(tree, workers, say=print):
    "Seconds, CPU seconds and peak MB of both stages on a tree"
    with tempfile.TemporaryDirectory(prefix='cxr-bench-') as run:
        total = [0, 0, 0]
        for module,args in (('data', ['--source', 'mimic', '--path', str(tree), '--no-prepare', '--workers', str(workers)]), ('prompts', [])):
            cmd = [sys.executable, '-c', f'from cxr_llava.{module} import main; main()', '--run', run] + args
            wall, cpu, peak, out = measured(cmd)
            say(f'  cxr_{module:8} {wall:7.1f} s wall {cpu:7.1f} s CPU {peak:7.0f} MB peak')
            total = [total[0] + wall, total[1] + cpu, max(total[2], peak)]
        audit = json.loads((Path(run)/'audit.json').read_text())
        found, stats = audit['found'], audit['stats']
        say(f'  {found["reports"]:,} reports, {found["xrays"]:,} X-rays, {found["patients"]:,} patients in; {stats["studies"]:,} studies out, {audit["rejected"]:,} left out')
        say(f'  in all       {total[0]:7.1f} s wall {total[1]:7.1f} s CPU {total[2]:7.0f} MB peak')
        return dict(reports=found['reports'], xrays=found['xrays'], wall_s=round(total[0], 1), cpu_s=round(total[1], 1), peak_mb=round(total[2]))

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('trees', nargs='+', type=Path, help='trees made by tools/mimic_like.py, small to large')
    p.add_argument('--workers', type=int, default=2)
    args, res = p.parse_args(), []
    for tree in args.trees:
        print(tree, flush=True)
        res.append(bench(tree, args.workers, lambda s: print(s, flush=True)))
    for a,b in zip(res, res[1:]): b |= {f'times_{k}': round(b[k]/a[k], 2) for k in ('reports', 'wall_s', 'cpu_s')}
    for b in res[1:]: print(f'{b["times_reports"]} times the reports: {b["times_wall_s"]} times the wall time, {b["times_cpu_s"]} times the CPU time')
    store('data_full_size', 'Manifest, sections, split, audit by ids and text, and conversations on a made-up tree with the form of MIMIC-CXR', dict(trees=res))

if __name__ == '__main__': main()
