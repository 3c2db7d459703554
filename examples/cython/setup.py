"""pip install --no-build-isolation ."""

import pylocks
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(ext_modules=cythonize([Extension("moments", ["moments.pyx"], include_dirs=[pylocks.get_include()])]))
