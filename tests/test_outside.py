"Models of others: a server on this computer that misbehaves in every way; nothing is lost, nothing leaks, nothing is asked twice"
import contextlib, json, random, signal, socket, struct, subprocess, sys, threading, time
from types import SimpleNamespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import pytest
pytest.importorskip('openai')
from PIL import Image
from cxr_llava.score import external as outside
from cxr_llava.eval import EvalConfig
from cxr_llava.score.collect import other_systems
from cxr_llava.score.external import OutsideConfig, run_outside
from cxr_llava.vlm.chat_format import make_prompt
from cxr_llava.core.files import CXRError, read_jsonl, write_json
from cxr_llava.score.systems import read_items

KEY = 'kx-' + 'Zq7'*9 # looks like a key, is none
REPORT = 'FINDINGS:\nThe lungs are clear.\n\nIMPRESSION:\nNormal.'

def good(provider, text=REPORT, end=None):
    return dict(choices=[dict(message=dict(content=text), finish_reason=end or dict(openai='stop', gemini='STOP')[provider])], usage=dict(prompt_tokens=1200, completion_tokens=30))

class Stub(BaseHTTPRequestHandler):
    "Answers as `server.mood(n, body)` says, `n` counting the requests for the same study"
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def reply(self, code, data, **headers):
        data = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
        self.send_response(code)
        for k,v in headers.items(): self.send_header(k.replace('_', '-'), str(v))
        self.send_header('Content-Length', str(len(data))), self.send_header('Connection', 'close'), self.end_headers()
        self.wfile.write(data)
    def do_GET(self): self.do_POST()
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.headers.append(dict(self.headers)), self.server.paths.append(self.path)
        n = self.server.count[body] = self.server.count.get(body, 0) + 1
        self.server.mood(self, n, body)

class Server(ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *a): pass
    def __init__(self, mood):
        super().__init__(('127.0.0.1', 0), Stub)
        self.mood, self.count, self.headers, self.paths = mood, {}, [], []
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    @property
    def asked(self): return sum(self.count.values())

@contextlib.contextmanager
def server(mood):
    s = Server(mood)
    try: yield s
    finally: s.shutdown(), s.server_close()

@pytest.fixture
def job(tmp_path, monkeypatch):
    "A run folder with six studies, a config for a server, and how long the client would have waited"
    waits = []
    monkeypatch.setattr('openai._base_client.time', SimpleNamespace(sleep=waits.append, time=time.time)) # the client's own waits
    monkeypatch.setattr(outside, 'sleep', lambda t: None)
    monkeypatch.setattr(outside, 'SECONDS', 1.2)
    monkeypatch.setattr(outside, 'RETRIES', 3)
    for k in ('OPENAI_API_KEY', 'GEMINI_API_KEY'): monkeypatch.setenv(k, KEY)
    asked = {'from': 'human', 'value': '<image>\n' + make_prompt()}
    for i in range(6): Image.new('L', (64, 64), 30*i + 40).save(tmp_path/f'{i}.png')
    write_json(tmp_path/'test.json', [dict(id=f's{i}', image=f'{i}.png', conversations=[asked, {'from': 'gpt', 'value': f'FINDINGS:\nStudy {i} is clear.'}]) for i in range(6)])
    def cfg(s, provider='openai', **kw):
        return OutsideConfig(**dict(dict(run=str(tmp_path), data_path=str(tmp_path/'test.json'), provider=provider, model='played', send=True, open_data=True, per_minute=1e6,
            base_url=f'http://127.0.0.1:{s.server_port}/v1') | kw))
    return tmp_path, cfg, waits

def no_key(folder, *texts):
    for p in folder.rglob('*'):
        if p.is_file(): assert KEY.encode() not in p.read_bytes(), p
    for t in texts: assert KEY not in t

def moods(provider):
    "Every way to misbehave, by name"
    def slow(h): time.sleep(1.6); h.reply(200, good(provider))
    def reset(h):
        h.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        h.connection.close()
    def half(h):
        h.send_response(200), h.send_header('Content-Length', '5000'), h.end_headers(), h.wfile.write(b'{"choices": [{"mess'), h.wfile.flush(), h.connection.close()
    return dict(busy=lambda h: h.reply(429, '{}'), busy_until=lambda h: h.reply(429, '{}', Retry_After=7), date=lambda h: h.reply(503, '', Retry_After='Wed, 21 Oct 2015 07:28:00 GMT'),
        odd_wait=lambda h: h.reply(503, '', Retry_After='soon'), broken=lambda h: h.reply(500, '<html>oops</html>'), gateway=lambda h: h.reply(502, b'\xff\xfe'), slow=slow, reset=reset, half=half,
        not_json=lambda h: h.reply(200, '{"choices": ['), html=lambda h: h.reply(200, '<html>'), nothing=lambda h: h.reply(200, ''), a_list=lambda h: h.reply(200, []), null=lambda h: h.reply(200, 'null'),
        no_choice=lambda h: h.reply(200, dict(choices=[])), empty=lambda h: h.reply(200, good(provider, '')), not_utf8=lambda h: h.reply(200, b'{"a": "\xff"}'))

@pytest.mark.parametrize('provider', ['openai', 'gemini'])
@pytest.mark.parametrize('name', sorted(moods('openai')))
def test_one_misbehaviour_before_every_answer(job, provider, name, capfd, monkeypatch):
    d, cfg, waits = job
    bad = moods(provider)[name]
    if name == 'slow': monkeypatch.setattr(outside, 'SECONDS', .4)
    with server(lambda h, n, b: bad(h) if n == 1 else h.reply(200, good(provider))) as s:
        c = cfg(s, provider, num_samples=2)
        rows = run_outside(c)
        assert [o['text'] for o in rows] == [REPORT]*2 and s.asked == 4
        run_outside(c)
        assert s.asked == 4
    if name == 'busy_until': assert waits.count(7.0) == 2
    no_key(d, *capfd.readouterr())

@pytest.mark.parametrize('seed', range(4))
def test_any_mixture_ends_complete(job, seed, capfd):
    "Up to three faults before each answer, several runs: every study is answered, each answer is paid for once"
    d, cfg, waits = job
    rng, ways = random.Random(seed), [v for k,v in moods('openai').items() if k != 'slow']
    plan = {}
    def mood(h, n, body):
        todo = plan.setdefault(body, [rng.choice(ways) for _ in range(rng.randrange(7))])
        todo.pop()(h) if todo else h.reply(200, good('openai'))
    with server(mood) as s:
        for _ in range(8):
            try: rows = run_outside(cfg(s))
            except CXRError as e: assert 'run the same command again' in str(e)
            else: break
        assert len(rows) == 6
        assert [o['id'] for o in read_jsonl(d/'predictions/openai-played.jsonl')[0]].__len__() == 6
    no_key(d, *capfd.readouterr())

def test_overload_waits_longer_and_longer(job, monkeypatch):
    d, cfg, waits = job
    monkeypatch.setattr(outside, 'RETRIES', 6)
    with server(lambda h, n, b: h.reply(503, '')) as s:
        with pytest.raises(CXRError, match='0 of 6 reports are in'): run_outside(cfg(s))
        assert s.asked == 3*7 # three studies in a row, then the run ends
    assert len(waits) == 3*6 and waits[5] > 8*waits[0] and max(waits) <= 60

def test_far_away_retry_after_ends_the_run_with_what_there_is(job):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good('openai')) if len(h.server.count) < 3 else h.reply(429, '{}', Retry_After=86400)) as s:
        with pytest.raises(CXRError, match='2 of 6 reports are in'): run_outside(cfg(s))
        assert not [t for t in waits if t > 120] and s.asked <= 2 + 3*4
    assert len(read_jsonl(d/'predictions/openai-played.jsonl')[0]) == 2

@pytest.mark.parametrize('code,body,words', [(401, f'bad key {KEY}', 'refused the key in OPENAI_API_KEY'), (403, '', 'refused the key'), (404, '', "no model 'played'"),
    (400, f'{{"error": "policy says no to {KEY}"}}', 'policy says no to [key]'), (429, '{"error": {"code": "insufficient_quota"}}', 'no credit left'), (302, '', 'redirect')])
def test_hopeless_replies_end_at_once_in_one_sentence(job, code, body, words, capfd):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(code, body, **({'Location': 'http://127.0.0.1:1/'} if code == 302 else {}))) as s:
        with pytest.raises(CXRError) as e: run_outside(cfg(s))
        assert words in str(e.value) and s.asked == (4 if code == 429 else 1) # the client repeats every 429
    no_key(d, str(e.value), *capfd.readouterr())

@pytest.mark.parametrize('code', [301, 302, 303, 307, 308])
def test_a_redirect_gets_no_key(job, code):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good('openai'))) as thief, server(lambda h, n, b: h.reply(code, '', Location=f'http://127.0.0.1:{thief.server_port}/x')) as s:
        with pytest.raises(CXRError, match='redirect'): run_outside(cfg(s))
        assert not thief.headers

@pytest.mark.parametrize('provider,reply', [('openai', dict(choices=[dict(message=dict(content=None), finish_reason='content_filter')])),
    ('openai', dict(choices=[dict(message=dict(content=None, refusal="I can't help with that."), finish_reason='stop')])),
    ('gemini', dict(choices=[dict(message=dict(content=None), finish_reason='PROHIBITED_CONTENT')])), ('gemini', dict(choices=[dict(message=dict(role='assistant'), finish_reason='SAFETY')]))])
def test_a_refusal_is_an_empty_report_with_its_reason(job, provider, reply, capfd):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, reply if len(h.server.count) == 1 else good(provider))) as s: rows = run_outside(cfg(s, provider))
    assert len(rows) == 6 and sum(not o['text'] for o in rows) == 1 and sum(bool(o.get('refused')) for o in rows) == 1
    assert '1 refused' in capfd.readouterr().out
    guests, left = other_systems(d/'predictions', read_items(d/'test.json'), [])
    assert not left and len(guests[f'{provider}-played']) == 6 # scored with the others, nothing dropped

@pytest.mark.parametrize('provider,end', [('openai', 'length'), ('gemini', 'MAX_TOKENS')])
def test_a_cut_answer_is_known_as_cut(job, provider, end):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good(provider, 'FINDINGS:\nThe lungs', end))) as s: assert not any(o['stopped'] for o in run_outside(cfg(s, provider)))

def test_older_servers_get_their_own_words(job):
    "max_tokens instead of max_completion_tokens, and no temperature"
    def mood(h, n, body):
        b = json.loads(body)
        if 'max_completion_tokens' in b: h.reply(400, '{"error": "unknown parameter max_completion_tokens"}')
        elif 'temperature' in b: h.reply(400, '{"error": "temperature is not supported"}')
        else: h.reply(200, good('openai', str(b['max_tokens'])))
    d, cfg, waits = job
    with server(mood) as s: assert {o['text'] for o in run_outside(cfg(s, max_new_tokens=77))} == {'77'}

@pytest.mark.parametrize('provider,header', [('openai', 'Authorization'), ('gemini', 'Authorization')])
def test_what_is_sent(job, provider, header):
    "The key in its header only, the picture without metadata, nothing of the reference"
    d, cfg, waits = job
    im = Image.open(d/'0.png')
    exif = Image.Exif(); exif[270] = 'Jane Doe'
    im.save(d/'0.png', exif=exif)
    with server(lambda h, n, b: h.reply(200, good(provider))) as s:
        run_outside(cfg(s, provider))
        assert all(KEY in {k.lower(): v for k,v in h.items()}[header.lower()] for h in s.headers)
        assert not any(KEY in p for p in s.paths)
        for b in s.count: assert KEY.encode() not in b and b'Jane' not in b and b'is clear' not in b and b'FINDINGS' in b

def test_an_echoed_key_reaches_no_file(job, capfd):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good('openai', f'Your key is {KEY}'))) as s: rows = run_outside(cfg(s))
    assert {o['text'] for o in rows} == {'Your key is [key]'}
    no_key(d, *capfd.readouterr())

def test_nothing_without_send_and_nothing_above_the_limit(job, capfd):
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s:
        assert run_outside(cfg(s, send=False)) == [] and s.asked == 0
        assert 'cost unknown' in capfd.readouterr().out
        with pytest.raises(CXRError, match='price of played is unknown'): run_outside(cfg(s, max_cost=5))
        assert s.asked == 0
        with pytest.raises(CXRError, match='of 6 reports are in'): run_outside(cfg(s, max_cost=.015, price_in=2., price_out=8.))
        n = s.asked
        assert 0 < n < 6 and 'Stopped before spending more than' in capfd.readouterr().out
        assert len(run_outside(cfg(s, price_in=2., price_out=8.))) == 6 and s.asked == 6

def test_rate_limit(job, monkeypatch):
    d, cfg, waits = job
    monkeypatch.setattr(outside, 'sleep', waits.append)
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s: run_outside(cfg(s, per_minute=60))
    assert waits[0] == 0 and all(w > .5 for w in waits[1:]) and sum(waits) > 10 # times add up, since nobody really sleeps

def closed(kind):
    "Ids made when the test runs, so that none stands in this file"
    return dict(patient='p1' + '2'*7, study='s5' + '3'*7, image='-'.join(['0a1b2c3d']*5), number='1' + '0'*7)[kind]

@pytest.mark.parametrize('change', [lambda o: o | dict(id=closed('study')), lambda o: o | dict(id=closed('number')), lambda o: o | dict(image=f'{closed("patient")}.png'),
    lambda o: o | dict(image=f'{closed("image")}.png'), lambda o: o | dict(image='mimic-cxr/0.png'), lambda o: o | dict(image='PhysioNet/0.png'),
    lambda o: o | dict(conversations=[o['conversations'][0], {'from': 'gpt', 'value': 'Seen on ' + '_'*3 + ' by Dr. ' + '_'*3}]),
    lambda o: o | dict(conversations=[{'from': 'human', 'value': f'<image>\nIndication: {"_"*3} year old.\nReport.'}, o['conversations'][1]])])
def test_closed_data_is_refused_whole(job, change):
    d, cfg, waits = job
    recs = json.loads((d/'test.json').read_text())
    recs[4] = change(recs[4])
    (d/recs[4]['image']).parent.mkdir(exist_ok=True)
    Image.new('L', (64, 64), 9).save(d/recs[4]['image'])
    write_json(d/'test.json', recs)
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s:
        with pytest.raises(CXRError, match='Nothing was sent'): run_outside(cfg(s))
        assert s.asked == 0
    assert not (d/'predictions').exists()

@pytest.mark.parametrize('source', ['mimic', 'mimic_csv', 'course', 'padchest'])
def test_closed_sources_in_the_manifest(job, source):
    import pandas as pd
    d, cfg, waits = job
    pd.DataFrame(dict(study_id=[f's{i}' for i in range(6)], patient_id='', source=['openi_csv']*5 + [source])).to_parquet(d/'studies.parquet')
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s:
        with pytest.raises(CXRError, match='source in the manifest'): run_outside(cfg(s))
        assert s.asked == 0

@pytest.mark.parametrize('name', ['10', 'p12', '12012023-7'])
def test_ids_that_only_resemble_those_of_mimic_may_leave(name):
    from cxr_llava.score.external import check_may_leave
    item = dict(id=name, images=[f'images/{name}/1.jpg'], question='Report.', reference='On Abraxane. Clear.')
    check_may_leave([item], {name: dict(source='openi_csv', patient_id='')}, 'runs/test.json')

def test_unknown_source_needs_a_word_and_open_ones_do_not(job):
    import pandas as pd
    d, cfg, waits = job
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s:
        with pytest.raises(CXRError, match='--open_data'): run_outside(cfg(s, open_data=False))
        pd.DataFrame(dict(study_id=[f's{i}' for i in range(6)], patient_id='', source='openi_xml')).to_parquet(d/'studies.parquet')
        assert len(run_outside(cfg(s, open_data=False))) == 6

def test_killed_in_the_middle_goes_on(job):
    "kill -9 between two answers: what was answered is kept and not asked again"
    d, cfg, waits = job
    go = threading.Event()
    def mood(h, n, b):
        if len(h.server.count) > 3: go.wait(30)
        h.reply(200, good('openai'))
    with server(mood) as s:
        args = ['--run', d, '--data_path', d/'test.json', '--model', 'played', '--send', '--open_data', '--per_minute', '100000', '--base_url', f'http://127.0.0.1:{s.server_port}/v1']
        cmd = [sys.executable, '-m', 'cxr_llava.score.external', *map(str, args)]
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        t = time.time()
        while len(s.count) < 4 and p.poll() is None and time.time() - t < 60: time.sleep(.02)
        p.send_signal(signal.SIGKILL)
        said = p.communicate()[0]
        have = len(read_jsonl(d/'predictions/openai-played.jsonl')[0])
        assert have == 3
        with open(d/'predictions/openai-played.jsonl', 'a') as f: f.write('{"id": "s9", "te') # and half a line
        go.set()
        r = subprocess.run(cmd, capture_output=True, text=True, timeout=120)
        assert r.returncode == 0, r.stderr
        assert s.asked == 7 and '3 of 6 reports are on disk' in r.stdout # the killed one was asked twice
    assert len(read_jsonl(d/'predictions/openai-played.jsonl')[0]) == 6
    no_key(d, said, r.stdout, r.stderr)

def test_command_says_what_is_wrong(tmp_path):
    r = subprocess.run([sys.executable, '-m', 'cxr_llava.score.external', '--run', str(tmp_path)], capture_output=True, text=True)
    assert r.returncode == 2 and r.stderr.startswith('error: `model` is missing') and r.stderr.count('\n') == 1

def test_without_the_package_one_sentence_names_the_extra(job, monkeypatch):
    d, cfg, waits = job
    monkeypatch.setitem(sys.modules, 'openai', None)
    with server(lambda h, n, b: h.reply(200, good('openai'))) as s:
        with pytest.raises(CXRError, match=r'cxr_llava\[outside\]'): run_outside(cfg(s))
        assert s.asked == 0
