"Each socket takes a second entry: one file, one entry, and everything finds it"
import sys
import pytest

def test_a_made_up_action(tmp_path):
    "It appears and works in the panel of the notebook and in the Gradio app"
    from cxr_llava.panel.gradio import action_event, gradio_app, PARTS
    from cxr_llava.panel.session import ACTIONS, Session
    from cxr_llava.panel.widgets import ReportPanel
    from standin import Standin
    import second_action
    try:
        panel = ReportPanel(Standin(), tmp_path)
        panel.w.shout.click()
        assert 'no X-ray yet' in panel.w.status.value
        panel.run(panel.session.choose_example('Normal'))
        panel.w.report.click(); panel.wait()
        panel.w.indication.value = 'Now!'
        panel.w.shout.click()
        assert panel.wait() and panel.session.error is not None and 'Loud and clear' in panel.w.status.value
        assert panel.w.impression.value == 'LEFT PLEURAL EFFUSION. Now!' and 'Edited by hand' in panel.w.links.value
        assert panel.w.shout.description == 'Shout' and not panel.w.shout.disabled
        pytest.importorskip('gradio')
        app, _ = gradio_app(Standin())
        assert 'Shout' in [o['props'].get('value') for o in app.get_config_file()['components']]
        session = Session(Standin())
        list(session.choose_example('Normal')), list(session.report())
        *_, values = action_event('shout', ['indication'])(session, 'Now!')
        shown = dict(zip(PARTS, values))
        assert shown['impression'] == 'LEFT PLEURAL EFFUSION. Now!' and 'Loud and clear' in shown['status']
    finally: ACTIONS.pop('shout')

@pytest.fixture
def qwen(tmp_path):
    "Folder of a tiny model of a family that one class has added"
    from cxr_llava.vlm import family
    from cxr_llava.vlm.bases import load_processor, tiny_dir
    before = dict(family.FAMILIES)
    sys.modules.pop('second_family', None)
    import second_family
    second_family.save_base(tmp_path/'qwen', load_processor(tiny_dir()).tokenizer)
    yield tmp_path/'qwen'
    family.FAMILIES.clear()
    family.FAMILIES.update(before)

def test_a_second_model_family(qwen):
    "Load, encode with labels, write reports alone and in a batch, ask, map, adapt, learn"
    from cxr_llava.vlm.bases import load_base
    from cxr_llava.vlm.load import load_model
    from cxr_llava.xray.drawing import phantom_xray
    m, x, other = load_model(base=str(qwen)), phantom_xray(2, effusion='left'), phantom_xray(3)
    fam, tok = m.family, m.processor.tokenizer
    turns = [{'from': 'human', 'value': '<image>\nReport.'}, {'from': 'gpt', 'value': 'FINDINGS:\nClear.'}]
    ids, labels = fam.encode(m.processor, turns)
    assert ids.count(fam.image_token_id(m.processor)) == fam.image_tokens(m.processor) == 16
    assert tok.decode([t for t in labels if t != -100]) == 'FINDINGS:\nClear.<|im_end|>'
    reps = [m.generate_report(o, i, 24) for o,i in ((x, None), (other, 'Cough and fever.'))]
    assert [r.text for r in m.generate_reports([x, other], 2, [None, 'Cough and fever.'], max_new_tokens=24)] == [r.text for r in reps] and reps[0].text
    a = m.ask(x, 'Why?', [reps[0]], 8)
    m.forget()
    assert m.ask(x, 'Why?', [reps[0]], 8) == a
    heat, = m.relevance(x, 'FINDINGS:\nLeft effusion.', 0, steps=1)
    assert heat.shape == (4, 4) and abs(heat.sum() - 1) < 1e-5
    assert fam.features(m.bare, fam.pixels(m.processor, [x, other])).shape == (2, 64)
    assert fam.shape(m.bare.config.to_dict()).layers == len(fam.blocks(m.bare)) == 3
    model, processor = load_base(str(qwen))
    x.save(qwen/'x.png')
    longer = fam.encode(m.processor, [*turns[:1], {'from': 'gpt', 'value': 'FINDINGS:\nThe heart is large.'}])
    learn_a_step(model, processor, [dict(ids=i, labels=l, images=[str(qwen/'x.png')]) for i,l in ((ids, labels), longer)])

def test_a_second_family_is_finetuned(qwen, tmp_path):
    "Planned, trained with the collator and recomputed layers, looked at, saved, and loaded again"
    from cxr_llava.core.files import read_json
    from cxr_llava.finetune import finetune
    from cxr_llava.train.settings import FinetuneConfig
    from cxr_llava.vlm.load import load_model
    from made_up import conversations, losses
    data = conversations(tmp_path, 8)
    adapter = finetune(FinetuneConfig(base=str(qwen), device='cpu', data=str(data), out=str(tmp_path/'adapter'), epochs=4, lr=1e-2, dropout=0., batch=2, evals=1, checkpointing='2'))
    steps = losses(tmp_path)
    assert len(steps) == 8 and steps[-1][1] < steps[0][1]
    assert read_json(tmp_path/'finetune.json')['look']['texts'] == 4
    assert load_model(str(adapter), base=str(qwen)).generate_report(tmp_path/'0.png', max_new_tokens=8)

def test_written_as_transformers_writes(qwen):
    "The loop around the model gives the tokens of `generate`"
    import torch
    from cxr_llava.vlm.load import load_model
    from cxr_llava.xray.drawing import phantom_xray
    m, x = load_model(base=str(qwen)), phantom_xray(2, effusion='left')
    turns = [{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'}]
    ids = torch.tensor([m.family.encode(m.processor, turns, True)[0]])
    inputs = m.family.inputs(m.processor, m.family.pixels(m.processor, x), ids)
    out = m.bare.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, **inputs)
    assert m.generate_report(x, max_new_tokens=24).text == m._text(out[0, ids.shape[1]:].tolist()).strip()

def learn_a_step(model, processor, rows):
    "The collator and LoRA of the training, some layers recomputed; a few steps make the loss smaller"
    from types import SimpleNamespace
    import torch
    from cxr_llava.train.batch import Collator, XRayStore
    from cxr_llava.train.loop import add_lora, recompute
    pm = add_lora(model, SimpleNamespace(lora_r=4, alpha=8, dropout=0.)).train()
    assert recompute(pm, 2) == 2
    batch = Collator(XRayStore(processor), processor.tokenizer.pad_token_id)(rows)
    opt, losses = torch.optim.SGD([p for p in pm.parameters() if p.requires_grad], lr=1.), []
    for _ in range(3):
        loss = pm(**batch).loss
        losses.append(float(loss.detach()))
        loss.backward()
        opt.step()
        opt.zero_grad()
    assert losses[-1] < losses[0]

def test_a_made_up_metric(tmp_path):
    "It stands with its interval in metrics.json, in the tables of the page, in the paired comparison and in the terminal"
    from cxr_llava.core.files import read_json, write_jsonl
    from cxr_llava.eval import EvalConfig, evaluate
    from cxr_llava.score.metrics import METRICS
    from cxr_llava.score.outcome import tell
    import second_metric
    refs = [f'FINDINGS:\nThere is an effusion in study {i}.\n\nIMPRESSION:\nEffusion.' for i in range(24)]
    def predictions(name, word): return str(write_jsonl(tmp_path/f'{name}.jsonl', [dict(id=f's{i}', prediction=f'{r} {word*(i % 2)}', reference=r) for i,r in enumerate(refs)]))
    try:
        files = ','.join([predictions('good', 'Stable.'), predictions('bad', 'Nothing changed overnight.')])
        m = evaluate(EvalConfig(run=str(tmp_path/'out'), predictions=files, bootstrap=100))
        text = read_json(tmp_path/'out/metrics.json')['systems']['bad']['text']
        assert text['new_words'] == 1.5 and text['new_words_lo'] < 1.5 < text['new_words_hi']
        difference = m['differences']['good - bad']['new_words']
        assert difference['value'] == -1 and difference['lo'] <= -1 <= difference['hi'] < 0 and difference['p'] < .05
        assert m['systems']['bad']['sections']['impression']['new_words'] == 1.5
        page = (tmp_path/'out/report.html').read_text()
        for table in ('systems', 'words'): assert 'New words' in page[page.index(f'<table class="{table}">'):].split('</table>')[0]
        assert 'New words' in page[page.index('Paired differences'):].split('</table>')[0] and '1.5 <small>[' in page
        assert 'New words' in tell(m)
    finally: METRICS.pop('new_words')

# ---- a data source

@pytest.fixture
def shoebox():
    "The made-up source is there for one test"
    import second_source
    from cxr_llava.sources.registry import SOURCES, source
    source('shoebox')(second_source.Shoebox)
    yield second_source
    SOURCES.pop('shoebox')

def test_a_made_up_source(shoebox, tmp_path):
    "One class in one file: found in a folder, read, counted, prepared, split, and kept on this computer"
    from cxr_llava.core.files import read_json
    from cxr_llava.data import build_dataset, DataConfig
    from cxr_llava.sources.collections import compare_counts, find_source
    from cxr_llava.sources.registry import is_restricted
    shoebox.write_shoebox(tmp_path/'box')
    assert find_source(tmp_path/'box') == find_source(tmp_path/'box/shoebox.txt') == ('shoebox', tmp_path/'box')
    df = build_dataset(DataConfig(path=str(tmp_path/'box'), run=str(tmp_path/'run'), size=64, workers=1))
    audit = read_json(tmp_path/'run/audit.json')
    assert sorted(df.study_id) == ['ann-1', 'bob-1', 'cid-1'] and set(df.split) == {'train', 'val', 'test'} and audit['source'] == 'shoebox'
    assert compare_counts('shoebox', audit['found']) == '4 reports (published 3: 1 more), 4 xrays (as published)'
    assert is_restricted(source='shoebox') and 'shoebox' in DataConfig.known()['source'][2]

@pytest.mark.parametrize('name', ['phantom', 'openi_csv', 'openi_xml', 'mimic', 'mimic_csv', 'course', 'table', 'shoebox'])
def test_every_source_says_what_it_must(name, shoebox, tmp_path):
    from cxr_llava.core.files import CXRError, Rejects
    from cxr_llava.data import DataConfig
    from cxr_llava.sources.registry import sources
    entry = sources()[name]
    assert entry.name == name and type(entry).__doc__ and entry.licence.duties and entry.licence.may_leave in (True, False, None)
    assert all(isinstance(count, int) for count in entry.published.values()) and DataConfig(source=name).source == name
    assert entry.detect(tmp_path) is None # an empty folder is nobody's
    try: assert list(entry.read(tmp_path, Rejects(), {})) == []
    except CXRError as e: assert str(tmp_path) in str(e) and '\n' not in str(e) # nothing to read is one sentence
    if not entry.has_route():
        with pytest.raises(CXRError): entry.fetch(tmp_path)
