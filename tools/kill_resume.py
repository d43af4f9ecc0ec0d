"""Kill a training at random moments and see that its end is that of an uninterrupted one. `python tools/kill_resume.py [--kills 20] [--processes 1 2]`

Each trial: start the command, wait for a random step, `kill -9` the command or any process below it, up to three times; then let it finish.
The adapter must have the same hash and the log the same losses, and nothing may be left running. Two trials at a time."""
import argparse, random, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/'tests')]
from cxr_llava.core.files import read_json
from made_up import command, conversations, env, killed, losses
from results import store

STEPS = 16 # of the whole training

def finish(cmd, out):
    "Let a training end: its adapter and losses, and what it said"
    r = subprocess.run(cmd, env=env(), capture_output=True, text=True, timeout=1200)
    return (read_json(out/'finetune.json')['adapter_hash'], losses(out)) if r.returncode == 0 else None, r.stdout + r.stderr

def saved(out): return max((int(p.name.split('-')[1]) for p in (out/'checkpoints').glob('checkpoint-*')), default=0)

def trial(cmd, out, want, rng):
    "One training, killed one to three times, and what came of it"
    out.mkdir()
    t, kills = time.time(), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        who = killed(cmd, out/'said.txt', rng, rng.randrange(saved(out), STEPS))
        if who: kills.append((who, saved(out)))
    got, said = finish(cmd, out)
    shutil.rmtree(out)
    return kills, dict(killed='; '.join(f'{who} (saved: step {n})' for who,n in kills), resumed='resume: from' in said, equal=got == want, adapter=got[0] if got else said[-500:], seconds=round(time.time() - t))

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--kills', type=int, default=20, help='trials for each number of processes')
    p.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    p.add_argument('--seed', type=int, default=0)
    a, res, tally = p.parse_args(), [], dict(trials=0, equal=0, kills=0, kills_after_a_checkpoint=0)
    top = Path(tempfile.mkdtemp(prefix='cxr-kill-'))
    data = conversations(top)
    def cmd(out, n): return command(data, out, '--dropout', '0.1', '--processes', str(n), '--save_minutes', '0.001')
    with ThreadPoolExecutor(2) as ex:
        whole = {n: top/f'whole{n}' for n in a.processes}
        refs = dict(zip(whole, ex.map(lambda n: finish(cmd(whole[n], n), whole[n]), whole)))
        for got, said in refs.values(): got or sys.exit(said)
        todo = {ex.submit(trial, cmd(top/f'{n}-{i}', n), top/f'{n}-{i}', refs[n][0], random.Random(f'{a.seed} {n} {i}')): n for i in range(a.kills) for n in a.processes}
        for f in as_completed(todo):
            kills, d = f.result()
            if not kills: continue # it was done before anybody came
            print(f'{"equal" if d["equal"] else "DIFFERENT"}  {todo[f]} process(es), {d["seconds"]} s, killed: {d["killed"]}', flush=True)
            res.append(dict(processes=todo[f], **d))
            for k,v in zip(tally, (1, d['equal'], len(kills), sum(n > 0 for _,n in kills))): tally[k] += v
    shutil.rmtree(top)
    store('kill_resume', 'Trainings killed (kill -9) up to three times, then finished: adapter and losses equal to those of an uninterrupted one', dict(**tally, trials_in_detail=res))
    print(', '.join(f'{v} {k.replace("_", " ")}' for k,v in tally.items()))
    sys.exit(tally['equal'] != tally['trials'])

if __name__ == '__main__': main()
