"A made-up action of the panel: one method with its label, and both faces have the button"
from fastcore.basics import patch
from cxr_llava.panel.session import action, Session, Update

@patch
@action('Shout', 'Write the impression in capitals')
def shout(self:Session,
    indication:str='', # Why the X-ray was taken; the field of this name gives it
):
    "Write the impression in capitals"
    case = self.need_report()
    yield Update(sentence='Taking a deep breath.', kind='busy')
    case.impression = f'{case.impression.upper()} {indication}'.strip()
    yield Update(self.shown(), 'Loud and clear.', 'done')
