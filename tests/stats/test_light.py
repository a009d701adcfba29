"""The command line's parent process imports the statistics, so they must not bring numpy or scipy along."""

import subprocess
import sys


def test_importing_the_statistics_imports_neither_numpy_nor_scipy():
    code = "import sys, zbench.stats; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "zbench.stats.sequential" in loaded
    assert not {"numpy", "scipy", "pandas"} & set(loaded)
    assert not [name for name in loaded if name.startswith("zbench.") and not name.startswith("zbench.stats")]
