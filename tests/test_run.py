"The whole job as one call: what it refuses before it works, and what its summary says"
from cxr_llava import stages
from cxr_llava.run import RunConfig

def test_sources_are_parsed_once(monkeypatch):
    "Help for 80 settings once cost 800 parses, some 10 s before the first word"
    from fastcore import docments
    RunConfig.known()
    monkeypatch.setattr(docments, 'docments', lambda *a, **kw: 1/0)
    stages._parser(RunConfig)
    assert RunConfig.known()['epochs'][2] == 'finetune: Passes over the data'
