"""Measures the data stage against what is known: `python tools/score_data.py openi FOLDER`, `... leaks`, `... kill`

openi FOLDER  reads Open-i reports (XML or their .tgz, found below FOLDER) and prints sections, X-rays, XXXX and seconds
leaks         plants six leaks, one of each kind, and looks for false alarms among phantoms of different patients
kill          stops the stage by SIGKILL at random moments, again and again, and compares what it leaves with an undisturbed run"""
import argparse, hashlib, random, signal, subprocess, sys, tempfile, time
from pathlib import Path
from results import store

def openi(folder, say=print):
    "Counts of the reports below `folder`"
    from cxr_llava.sources.lookup import locate_all
    from cxr_llava.report.sections import deid_count
    from cxr_llava.sources.collections import compare_counts, iter_openi_xml
    from cxr_llava.core.files import Rejects
    start, bad, found = time.process_time(), Rejects(), {}
    inside = [p for p in locate_all(folder, '*.tgz', '*.tar.gz') if 'report' in p.name.lower()] if Path(folder).is_dir() else []
    studies = list(iter_openi_xml(inside[0] if inside else folder, bad, need_images=False, found=found))
    f, i = [bool(s.findings) for s in studies], [bool(s.impression) for s in studies]
    sure = lambda s: ' '.join(t or '' for t in (s.indication, s.comparison, s.findings, s.impression))
    res = dict(reports=len(studies), both=sum(a and b for a,b in zip(f, i)), impression_only=sum(b and not a for a,b in zip(f, i)),
        findings_only=sum(a and not b for a,b in zip(f, i)), neither=sum(not a and not b for a,b in zip(f, i)),
        with_XXXX=sum(deid_count(sure(s)) > 0 for s in studies), without_xray=found['reports'] - found['reports_with_xrays'], xray_ids=found['xrays'], exceptions=len(bad))
    say(f'{compare_counts("openi_xml", found)}; {time.process_time() - start:.2f} s CPU')
    for k,n in res.items(): say(f'  {k:16} {n:6}')
    return res | dict(cpu_s=round(time.process_time() - start, 2))

def plant(d, n=10):
    "A table with a split and six leaks; its path"
    import pandas as pd
    from PIL import Image, ImageOps
    from cxr_llava.xray.read import read_xray, save_jpeg
    from cxr_llava.xray.drawing import phantom_xray
    words = 'the quick brown fox jumps over a lazy dog while many small zebras walk along every quiet river bank in order to see where some of those nice old boats might be lying today'
    def row(i, split, im=None, **kw):
        if im is not None: save_jpeg(im, d/f'{i}.jpg', 95)
        return dict(image=f'{i}.jpg', findings=f'Finding number {i}.', impression='Normal.', patient_id=f'p{i}', study_id=f's{i}', split=split) | kw
    rows = [row(i, 'train', phantom_xray(i, size=256), **({'findings': words} if i == 4 else {})) for i in range(n)]
    def stored(i): return read_xray(d/f'{i}.jpg').image
    small = stored(3).resize((stored(3).width*4//5, stored(3).height*4//5), Image.LANCZOS)
    (d/'a').mkdir()
    rows += [row(n, 'test', phantom_xray(n, size=256), patient_id='p0'), row(n + 1, 'val', phantom_xray(n + 1, size=256), findings=words), row(n + 2, 'test', small)]
    (d/f'{n + 3}.jpg').write_bytes((d/'1.jpg').read_bytes())
    ImageOps.mirror(stored(2)).save(d/f'{n + 4}.png')
    rows += [row(n + 3, 'test'), row(n + 4, 'val', image=f'{n + 4}.png'), row(n + 5, 'val', phantom_xray(n + 5, size=256), study_id='s5')]
    pd.DataFrame(rows).to_csv(d/'t.csv', index=False)
    return d/'t.csv'

def leaks(phantoms=1000, size=192, workers=2, say=print):
    "(kind -> found, false alarms among phantoms, how many they are)"
    from cxr_llava.sources.split import add_fingerprints, audit_splits, find_ties, patients_of
    from cxr_llava.data import build_dataset, DataConfig
    with tempfile.TemporaryDirectory() as t:
        t = Path(t)
        import pandas as pd
        (t/'planted').mkdir()
        df = pd.read_csv(plant(t/'planted'))
        df = add_fingerprints(df.assign(images=[[o] for o in df.image], flags=[{}]*len(df)), t/'planted')
        found = {o['kind']: o['leaks'] for o in audit_splits(df, t/'planted')['table']}
        for k,n in found.items(): say(f'  planted {k:10} {"found" if n else "MISSED"} ({n})')
        run = build_dataset(DataConfig(source='phantom', n=phantoms, size=size, workers=workers, run=str(t/'run')))
        who, ties = patients_of(run), find_ties(run, t/'run')
        wrong = {k: sum(who[a] != who[b] for a,b in ties[k]) for k in ('study', 'pixels', 'mirrored', 'near', 'text')}
    n = sum(o > 0 for o in found.values())
    say(f'{n} of {len(found)} planted leaks found; false alarms among {len(run)} phantoms of {len(set(who))} patients: '
        + ', '.join(f'{k} {v}' for k,v in wrong.items()))
    return found, wrong, dict(phantoms=len(run), patients=len(set(who)))

def contents(d): return {p.relative_to(d).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(d.rglob('*')) if p.is_file()}

def killed(cmd, run, rng, n, early):
    "Run `cmd` and kill it: early at a number of prepared X-rays, else after a number of printed lines; whether it was still alive"
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if early:
        have = len(list(run.glob('images/*/*')))
        want = have + rng.randint(1, max(1, n//4))
        while p.poll() is None and len(list(run.glob('images/*/*'))) < min(want, n): time.sleep(.002)
    else:
        for _ in range(rng.randint(2, 16)): p.stdout.readline()
    time.sleep(rng.uniform(0, .1))
    p.send_signal(signal.SIGKILL)
    p.stdout.close()
    return p.wait() != 0

def kill(times=12, n=60, seed=0, say=print):
    "Kills, files, and those that differ between an undisturbed run and those that go on after being killed"
    from cxr_llava.xray.phantom import make_phantom
    rng, alive, differ = random.Random(seed), 0, set()
    with tempfile.TemporaryDirectory() as t:
        t = Path(t)
        src = make_phantom(t/'source', n=n, size=96, workers=1)
        def cmd(run): return [sys.executable, '-u', '-c', 'from cxr_llava.data import main; main()', '--source', 'openi_csv', '--path', str(src), '--size', '64', '--workers', '1', '--run', str(t/run)]
        subprocess.run(cmd('whole'), check=True, capture_output=True)
        want = contents(t/'whole')
        for k in range(3*times):
            hit = killed(cmd('cut'), t/'cut', rng, n, early=k % 2 == 0)
            alive += hit
            say(f'  stop {k + 1}: {"killed" if hit else "had ended"}, {len(contents(t/"cut"))} of {len(want)} files')
            if hit and alive < times and k % 5 != 4: continue
            subprocess.run(cmd('cut'), check=True, capture_output=True)
            got = contents(t/'cut')
            differ |= {o for o in want.keys() | got.keys() if want.get(o) != got.get(o)}
            for o in sorted((t/'cut').rglob('*'), reverse=True): o.rmdir() if o.is_dir() else o.unlink()
            if alive >= times: break
    say(f'{alive} kills, {len(want)} files, {len(differ)} differ{": " + ", ".join(sorted(differ)[:5]) if differ else ""}')
    return alive, len(want), sorted(differ)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('what', choices=('openi', 'leaks', 'kill'))
    p.add_argument('folder', nargs='?', type=Path, help='for openi: where the reports are')
    args = p.parse_args()
    if args.what == 'openi':
        if not args.folder: p.error('openi needs a folder')
        store('data_openi', 'Open-i XML reports, read and counted', openi(args.folder))
    elif args.what == 'leaks':
        found, wrong, among = leaks()
        store('data_leaks', 'Leaks planted one of each kind, and false alarms among phantoms of different patients', dict(planted_found=found, **among, false_alarms=wrong))
        sys.exit(not all(found.values()) or any(wrong.values()))
    else:
        kills, files, differ = kill()
        store('data_kills', 'The data stage killed at random moments and started again, against an undisturbed run', dict(kills=kills, files=files, differ=len(differ)))
        sys.exit(bool(differ))

if __name__ == '__main__': main()
