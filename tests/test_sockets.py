"Each socket takes a second entry: one file, one entry, and everything finds it"
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
