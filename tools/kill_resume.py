"""Kill a training at random moments and see that its end is that of an uninterrupted one. `python tools/kill_resume.py [--kills 20] [--processes 1 2]`

Each trial: start, wait a random time from anywhere between the first second and the last step, `kill -9` the command or any process below it,
up to three times; then let it finish. The adapter must have the same hash and the log the same losses, and nothing may be left running.
Writes `bench/results/kill_resume.json`."""
import argparse, json, os, random, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
from cxr_llava.stages import read_json, versions, write_json
from made_up import command, conversations, env, losses

def children(pid):
    "Processes below `pid`"
    res = []
    for p in Path('/proc').glob('[0-9]*'):
        try: stat = (p/'stat').read_text().rsplit(')', 1)[1].split()
        except (OSError, IndexError): continue
        if int(stat[1]) == pid: res += [int(p.name), *children(int(p.name))]
    return res

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def run(cmd, kill_after=None, rng=None):
    "Seconds it took, exit code, who was killed, and what it said"
    t = time.time()
    with tempfile.TemporaryFile('w+') as f:
        p, who = subprocess.Popen(cmd, env=env(), stdout=f, stderr=f), None
        while p.poll() is None:
            if kill_after is not None and time.time() - t > kill_after:
                below = children(p.pid)
                who = rng.choice([p.pid, *below])
                name = 'command' if who == p.pid else f'process {below.index(who) + 1} below it'
                os.kill(who, signal.SIGKILL)
                p.wait(120)
                end = time.time() + 60
                while any(map(alive, below)):
                    if time.time() > end: raise SystemExit(f'error: {below} outlived the command')
                    time.sleep(.05)
                who = name
                break
            time.sleep(.02)
        code = p.wait()
        f.seek(0)
        return time.time() - t, code, who, f.read()

def trial(i, cmd_of, top, whole, rng):
    "One run, killed one to three times, and what came of it"
    out, kills = top/f'trial{i}', []
    out.mkdir()
    for _ in range(rng.choice((1, 1, 2, 3))):
        secs, code, who, said = run(cmd_of(out), rng.uniform(.1, 1.)*whole, rng)
        if who is None: break
        kills.append(dict(after=round(secs, 1), who=who, step=max([s for s,_ in losses(out)], default=0) if (out/'train_log.jsonl').exists() else 0))
    secs, code, _, said = run(cmd_of(out))
    return dict(kills=kills, resumed='resume: from' in said, exit=code, adapter=read_json(out/'finetune.json')['adapter_hash'] if code == 0 else said[-500:]), out

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--kills', type=int, default=20, help='trials for each number of processes')
    p.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', type=Path, default=ROOT/'bench/results/kill_resume.json')
    a = p.parse_args()
    top, res, good, n = Path(tempfile.mkdtemp(prefix='cxr-kill-')), [], 0, 0
    data = conversations(top)
    for procs in a.processes:
        def cmd_of(out): return command(data, out, '--dropout', '0.1', '--processes', str(procs), '--save_minutes', '0.005')
        ref = top/f'reference{procs}'
        ref.mkdir()
        whole, code, _, said = run(cmd_of(ref))
        if code: raise SystemExit(said)
        want, curve = read_json(ref/'finetune.json')['adapter_hash'], losses(ref)
        rng = random.Random(a.seed + procs)
        for i in range(a.kills):
            d, out = trial(f'{procs}-{i}', cmd_of, top, whole, rng)
            d |= dict(processes=procs, equal=d['exit'] == 0 and d['adapter'] == want and losses(out) == curve)
            res, good, n = res + [d], good + d['equal'], n + 1
            print(f'{"equal" if d["equal"] else "DIFFERENT"}  {procs} process(es), {d["kills"]}', flush=True)
            shutil.rmtree(out, ignore_errors=True)
    write_json(a.out, dict(what=__doc__.split('\n')[0], equal=good, trials=n, versions=versions(), results=res))
    shutil.rmtree(top, ignore_errors=True)
    print(f'{good} of {n} equal to the uninterrupted run')
    raise SystemExit(good != n)

if __name__ == '__main__': main()
