"Importing the package does nothing, quickly"
import subprocess, sys, time

def python(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)

def test_import_time():
    "Under half a second, Python's own start included; the best of five, as other work may run beside"
    def once():
        t = time.perf_counter()
        assert python('import cxr_llava').returncode == 0
        return time.perf_counter() - t
    assert min(once() for _ in range(5)) < .5

def test_import_is_quiet_and_light():
    r = python('import cxr_llava, sys; print(sorted({"torch", "pandas", "numpy", "transformers", "PIL", "fastcore"} & set(sys.modules)))')
    assert (r.stdout.strip(), r.stderr) == ('[]', '')

def test_star_import_keeps_builtins():
    r = python('from cxr_llava import *; print(eval("1+1"), label_report("No effusion.") is not None)')
    assert r.stdout.split() == ['2', 'True'], r.stderr

def test_every_public_name_exists():
    r = python('import cxr_llava\nfor n in cxr_llava.__all__: getattr(cxr_llava, n)\nassert set(cxr_llava.__all__) <= set(dir(cxr_llava))')
    assert r.returncode == 0, r.stderr

def test_unknown_name_is_an_attribute_error():
    r = python('import cxr_llava; cxr_llava.nothing')
    assert 'AttributeError' in r.stderr and 'nothing' in r.stderr

def test_stages_come_from_the_front():
    r = python('from cxr_llava import build_dataset, DataConfig, evaluate, EvalConfig, FinetuneConfig, make_conversations, PromptConfig\n'
               'import cxr_llava.finetune, sys\nprint(callable(cxr_llava.finetune.finetune), "torch" in sys.modules)')
    assert r.stdout.split() == ['True', 'False'], r.stderr
