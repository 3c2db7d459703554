"""pip install --no-build-isolation ."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import pylocks

setup(ext_modules=cythonize([Extension("moments", ["moments.pyx"], include_dirs=[pylocks.get_include()])]))
