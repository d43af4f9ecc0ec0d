"The facts that stand in two places agree, and what the package promises is in it"
import configparser, importlib, re, subprocess, sys, tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(scope='module')
def ini():
    c = configparser.ConfigParser(delimiters=['='])
    c.read(ROOT/'settings.ini', encoding='utf-8')
    return c['DEFAULT']

def test_shim_agrees_with_settings(ini):
    shim = tomllib.loads((ROOT/'pyproject.toml').read_text())['tool']['nbdev']
    for k in ('lib_path', 'nbs_path', 'tst_flags'): assert shim[k] == ini[k]
    for k in ('allowed_metadata_keys', 'allowed_cell_metadata_keys'): assert shim[k] == ini[k].split()
    for k in ('recursive', 'put_version_in_init', 'update_pyproject', 'custom_sidebar', 'clean_ids', 'jupyter_hooks'): assert shim[k] == ini.getboolean(k)

def test_pyproject_has_no_project_table(): assert set(tomllib.loads((ROOT/'pyproject.toml').read_text())) == {'build-system', 'tool'}

def test_version(ini):
    import cxr_llava
    assert cxr_llava.__version__ == ini['version']
    assert (ROOT/'cxr_llava/__init__.py').read_text().startswith(f'__version__ = "{ini["version"]}"\n')

def test_installed_version(ini): assert metadata.version('cxr_llava') == ini['version']

def test_requirements_have_no_upper_bounds(ini): assert not re.search(r'<|==|~=', ini['requirements'])

def test_nbdev_caps(ini): assert {'nbdev==2.4.14', 'execnb<0.2', 'fastcore<2', 'ghapi<2', 'fastgit<0.1'} <= set(ini['dev_requirements'].split())

def test_no_gpl(ini):
    names = {re.match(r'[\w-]+', o).group() for k,v in ini.items() if k.endswith('requirements') for o in v.split()}
    assert not names & {'pylibjpeg-libjpeg'}

def scripts(): return sorted(e.name for e in metadata.entry_points(group='console_scripts') if e.value.startswith('cxr_llava.'))

def test_all_scripts_are_installed(ini): assert scripts() == sorted(o.split('=')[0] for o in ini['console_scripts'].split())

@pytest.mark.parametrize('name', scripts())
def test_script_helps(name):
    exe = Path(sys.executable).parent/name
    r = subprocess.run([str(exe), '--help'], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    assert name in r.stdout

def test_tiny_model_is_in_the_package():
    import cxr_llava
    d = Path(cxr_llava.__file__).parent/'tiny_llava'
    assert (d/'config.json').exists() and (d/'model.safetensors').stat().st_size <= 6e6
    assert not list(d.glob('*.bin')) + list(d.glob('*.pkl'))

def test_wheel_holds_what_it_should(tmp_path):
    "Built without network: the build backend must be at hand"
    if not find_spec('setuptools'): pytest.skip('setuptools is not installed') # imported only in a process of its own: distutils may be loaded here
    import shutil, zipfile
    for o in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'): shutil.copy(ROOT/o, tmp_path)
    shutil.copytree(ROOT/'cxr_llava', tmp_path/'cxr_llava')
    r = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', 'dist', '.'], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    names = zipfile.ZipFile(next((tmp_path/'dist').glob('*.whl'))).namelist()
    for o in ('core/files.py', 'tiny_llava/model.safetensors', 'templates/summary.html', 'templates/summary.css'): assert f'cxr_llava/{o}' in names, o
    assert any(o.endswith('licenses/LICENSE') for o in names)
