"""Kill a training at random moments and see that its end is that of an uninterrupted one. `python tools/kill_resume.py [--kills 20] [--processes 1 2]`

Each trial: start, wait a random time from anywhere between the first second and the last step, `kill -9` the command or any process below it,
up to three times; then let it finish. The adapter must have the same hash and the log the same losses, and nothing may be left running.
`--fork` starts the processes as copies of one that has loaded the libraries already, without `torchrun` between, which is ten times quicker;
then one of the training processes is hit first and the others with it. Writes `bench/results/kill_resume.json`."""
import argparse, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, time, traceback
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

def forked(cmd, kill_after=None, rng=None):
    "As `run`, with copies of this process"
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, Trainer # noqa: F401 loaded once, for all copies
    from cxr_llava.finetune import FinetuneConfig, finetune
    import accelerate, bitsandbytes, matplotlib.figure, pandas, peft # noqa: F401
    given = dict(zip([o.lstrip('-') for o in cmd[4::2]], cmd[5::2]))
    n, t, who, f = int(given.pop('processes')), time.time(), None, tempfile.TemporaryFile('w+')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    def one(rank):
        os.dup2(f.fileno(), 1), os.dup2(f.fileno(), 2)
        if n > 1: os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        try: finetune(FinetuneConfig.load(None, **given))
        except BaseException: traceback.print_exc(); os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    pids = [os.fork() or one(r) for r in range(n)]
    left, code = list(pids), 0
    while left:
        if kill_after is not None and who is None and time.time() - t > kill_after:
            first = rng.randrange(n)
            who = f'process {first}'
            for k in [pids[first], *(o for o in pids if o != pids[first])]:
                if k in left: os.kill(k, signal.SIGKILL)
                time.sleep(rng.uniform(0, .05))
        for k in list(left):
            got, status = os.waitpid(k, os.WNOHANG)
            if got: left.remove(k); code = code or os.waitstatus_to_exitcode(status)
        time.sleep(.01)
    f.seek(0)
    return time.time() - t, code, who if code else None, f.read()

def trial(i, cmd_of, top, whole, rng, run):
    "One run, killed one to three times, and what came of it"
    out, kills = top/f'trial{i}', []
    out.mkdir()
    for _ in range(rng.choice((1, 1, 2, 3))):
        secs, code, who, said = run(cmd_of(out), rng.uniform(.1, 1.)*whole, rng)
        if who is None: break
        kills.append(dict(after=round(secs, 1), who=who, step=max([s for s,_ in losses(out)], default=0) if (out/'train_log.jsonl').exists() else 0))
    secs, code, _, said = run(cmd_of(out))
    return dict(kills=kills, resumed='resume: from' in said, exit=code, adapter=read_json(out/'finetune.json')['adapter_hash'] if code == 0 else said[-500:]), out

def reference(start, cmd_of, out):
    "Seconds, adapter and losses of an uninterrupted run"
    out.mkdir()
    whole, code, _, said = start(cmd_of(out))
    if code: raise SystemExit(said)
    return whole, read_json(out/'finetune.json')['adapter_hash'], losses(out)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--kills', type=int, default=20, help='trials for each number of processes')
    p.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    p.add_argument('--fork', action='store_true', help='quicker, without torchrun')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', type=Path, default=ROOT/'bench/results/kill_resume.json')
    a = p.parse_args()
    top, res, good, n = Path(tempfile.mkdtemp(prefix='cxr-kill-')), [], 0, 0
    data = conversations(top)
    start, refs, rng = forked if a.fork else run, {}, random.Random(a.seed)
    def cmd_of(procs): return lambda out: command(data, out, '--dropout', '0.1', '--processes', str(procs), '--save_minutes', '0.005')
    for i in range(a.kills):
        for procs in a.processes:
            if procs not in refs: refs[procs] = reference(start, cmd_of(procs), top/f'reference{procs}')
            whole, want, curve = refs[procs]
            d, out = trial(f'{procs}-{i}', cmd_of(procs), top, whole, rng, start)
            d |= dict(processes=procs, equal=d['exit'] == 0 and d['adapter'] == want and losses(out) == curve)
            if not d['kills']: continue # it was done before anybody came
            res, good, n = res + [d], good + d['equal'], n + 1
            print(f'{"equal" if d["equal"] else "DIFFERENT"}  {procs} process(es), {d["kills"]}', flush=True)
            shutil.rmtree(out, ignore_errors=True)
            write_json(a.out, dict(what=__doc__.split('\n')[0], started_by='fork' if a.fork else 'command', equal=good, trials=n, versions=versions(), results=res))
    shutil.rmtree(top, ignore_errors=True)
    print(f'{good} of {n} equal to the uninterrupted run')
    raise SystemExit(good != n)

if __name__ == '__main__': main()
