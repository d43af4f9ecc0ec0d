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
